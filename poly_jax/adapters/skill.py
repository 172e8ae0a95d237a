"""The interface of a skill: one adapter of an inventory that a router mixes."""

import inspect
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Uniform
from poly_jax.weights.parameter_spec import ParameterSpec

Mixed = Mapping[str, Float[Array, "..."]]


@runtime_checkable
class Skill(Protocol):
    """A kind of adapter: the parameters that a site owns, how skills mix, and how a mix changes the output.

    Every parameter has leading axes `[splits, skills]`. `*rows` stands for the leading axes of the mixing
    weights: `batch` where each row has a mix of its own, `batch segments` where rows hold several examples
    with mixes of their own, none where all examples share one.
    """

    def parameters(self, n_splits: int, n_skills: int, d_in: int, d_out: int) -> dict[str, ParameterSpec]:
        """The parameters of one site, by name."""

    def mix(self, parameters: Mixed, weights: Float[Array, "*rows splits skills"]) -> Mixed:
        """One adapter for each row out of the inventory; an array that all rows share may lack their axes."""

    def apply(
        self,
        mixed: Mixed,
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """The adapted output of the site, from its input and the frozen kernel's output.

        Args:
          mixed: the mix of each row, or one mix that all rows share; `batch segments` rows with `segments`.
          inputs: the site's input.
          outputs: the frozen kernel's output.
          uniform: draws from U(0, 1) for a shape while training; None in evaluation.
          segments: where rows hold several examples, the example of each position (1, 2, ...; 0 is padding,
            whose outputs may be anything finite); None for one example per row.
        """

    def kept(self, mixed: Mixed, dtype: jnp.dtype) -> Mixed:
        """The mix in the form that decoding keeps; `apply` gives the same with it for inputs of `dtype`."""

    def merge(self, mixed: Mixed, kernel: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
        """The kernel that computes the adapted output on its own; `mixed` has no row axes."""

    def averaged(self, n_skills: int) -> "Skill":
        """The kind of skill that results from averaging `n_skills` skills of this kind."""

    def average(self, parameters: Mixed) -> Mixed:
        """The one skill, of the kind `averaged`, that equals all skills at equal weights (MHR-mu).

        The parameters may have any axes before `[splits, skills]`, which stay; the `skills` axis becomes 1.
        """


def takes_packed_rows(skill: Skill) -> bool:
    """Whether a skill can be applied to rows of several examples: its `apply` has the argument `segments`."""
    return "segments" in inspect.signature(skill.apply).parameters


@runtime_checkable
class TaskSkill(Skill, Protocol):
    """A skill with parameters that belong to tasks, beside those of the inventory.

    They are stored as private parameters (`poly_jax.weights.parameter_names`), so that a new task draws them
    afresh.
    """

    def task_parameters(self, n_tasks: int) -> dict[str, ParameterSpec]:
        """The parameters of all tasks at one site, `[1, tasks, ...]`, by name."""

    def with_task(
        self, mixed: Mixed, own: Mixed, chosen: Float[Array, "*rows tasks"]
    ) -> Mapping[str, Float[Array, "..."]]:
        """The mix of each row changed by the parameters of its task; the arrays keep their names.

        Args:
          mixed: the mix of each row, or one mix that all rows share.
          own: the parameters of all tasks.
          chosen: 1 at the task of the row, 0 elsewhere.
        """


@runtime_checkable
class TokenSkill(Skill, Protocol):
    """A skill whose outputs can be mixed with weights of their own at every position.

    No position has a mixed copy of the skills. They stand side by side, as one adapter that all rows share.
    """

    def cheaper_by_token(self, n_splits: int, mixes: int) -> bool:
        """Whether `apply_by_token` equals `apply` and takes less work, for weights that belong to tasks.

        Args:
          n_splits: number of splits that mix on their own.
          mixes: number of mixes in a row, one for each of its examples.
        """

    def side_by_side(self, parameters: Mixed) -> Mixed:
        """All skills of a site as one adapter, which `apply_by_token` and `kept` take."""

    def apply_by_token(
        self,
        stacked: Mixed,
        weights: Float[Array, "batch length splits skills"],
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """The adapted output of the site; see `Skill.apply`.

        Args:
          stacked: the skills side by side.
          weights: weights of the skills at every position, in float32.
          inputs: the site's input.
          outputs: the frozen kernel's output.
          uniform: draws from U(0, 1) for a shape while training; None in evaluation.
        """
