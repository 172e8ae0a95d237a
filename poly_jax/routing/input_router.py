"""The interface of a router that looks at the inputs of the sites that it routes."""

import abc
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.routing.router import Parameters, Router, Sizes, Uniform
from poly_jax.weights.parameter_spec import ParameterSpec


class InputRouter(Router):
    """A way to pick skills by what a site reads, whatever the task is.

    Every adapted site has a router of its own, which mixes whole skills (one split). Its parameters begin
    with the axis of skills, so they can be kept when a run meets a task that it does not know. A subclass may
    set `pools` and `learned` (see `Router`).
    """

    serves_any_task: ClassVar[bool] = True
    reads_inputs: ClassVar[bool] = True

    @abc.abstractmethod
    def input_parameters(self, sizes: Sizes, width: int) -> dict[str, ParameterSpec]:
        """The parameters of one site's router, by name.

        Args:
          sizes: numbers of tasks, splits and skills.
          width: width of what the router reads.
        """

    @abc.abstractmethod
    def input_weights(
        self,
        parameters: Parameters,
        inputs: Float[Array, "*rows width"],
        task_ids: Int[Array, "*rows"],
        sizes: Sizes,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows skills"]:
        """The mixing weights of every row: a position, or with `pools` an example.

        Args:
          parameters: float32 arrays by the names that `input_parameters` gives.
          inputs: the site's input at each position; with `pools`, the mean of each example in float32.
          task_ids: the task of each row, for routers that learn from tasks which they know in training.
          sizes: numbers of tasks, splits and skills.
          uniform: draws from U(0, 1) for a shape while training; None in evaluation.

        Returns:
          The weights in float32.
        """

    def from_skills(self, skills: Mapping[str, Float[Array, "..."]]) -> dict[str, Float[Array, "..."]]:
        """The parameters that follow from the skills of the site, for a router that learns none.

        Args:
          skills: the skill's parameters, each [*layers, splits, skills, ...].

        Returns:
          Arrays [*layers, skills, ...] by the names of `input_parameters`; empty where training finds them.
        """
        return {}

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows_or_none splits skills"]:
        """Raise the error of a program that asks for the mix of a task."""
        raise no_single_adapter(self)


def no_single_adapter(router: Router) -> UserError:
    """The error about a run that has a router of inputs, where a program needs one adapter for a task."""
    return UserError(
        f"{type(router).__name__} mixes skills by their input, so that no task has one adapter or one row"
        " of weights: it cannot be merged or exported as one adapter; evaluate the run"
        " as it is, or average its skills with the variant 'zero-shot'"
    )
