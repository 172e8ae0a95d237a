"""The interface of a router: from task ids to mixing weights over skills."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from jaxtyping import Array, Float, Int

from poly_jax.weights.parameter_spec import ParameterSpec

Uniform = Callable[[tuple[int, ...]], Float[Array, "..."]]
"""Draws from U(0, 1) for a shape."""

Parameters = Mapping[str, Float[Array, "..."]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a router's table.

    Attributes:
      n_tasks: number of tasks; task ids are below it.
      n_splits: number of splits (MHR heads) that mix on their own.
      n_skills: number of skills in the inventory of a site.
    """

    n_tasks: int
    n_splits: int
    n_skills: int


class Router(abc.ABC):
    """A way to pick skills for a task.

    A router is a frozen dataclass that describes itself: its parameters belong to the model, one set for each
    group of sites that share it (the granularity).

    Attributes:
      owns_skills: whether each task has a skill of its own in the inventory, which no other task uses. The
        inventory's axis of skills is then the axis of tasks, in their order.
      names_tasks: whether weights depend on the tasks' names, which `for_tasks` then passes on.
      serves_any_task: whether weights do not depend on the task, so that a task needs no row to be answered.
      reads_inputs: whether weights come from the inputs of each site, as those of an `InputRouter` do.
      pools: for a router that reads inputs, whether an example has one mix, from the mean of its inputs.
        Otherwise each position has a mix of its own, and the outputs of skills are mixed instead of their
        factors.
      learned: whether the loss of tasks trains the router's parameters, if it has any. Otherwise a variant of
        `poly-jax adapt` makes the router for skills that are there already.
    """

    owns_skills: ClassVar[bool] = False
    names_tasks: ClassVar[bool] = False
    serves_any_task: ClassVar[bool] = False
    reads_inputs: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def for_tasks(self, names: tuple[str, ...]) -> "Router":
        """The router for the tasks of these names, in the order of their ids: a row may depend on the name.

        Raises:
          UserError: the router does not know one of the names.
        """
        return self

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number of skills that a site needs: `requested`, unless the router fixes the number itself."""
        return requested

    def parameters(self, sizes: Sizes) -> dict[str, ParameterSpec]:
        """The router's parameters by name; a router without parameters has none."""
        return {}

    @abc.abstractmethod
    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows_or_none splits skills"]:
        """The mixing weights of each row's task.

        Args:
          parameters: arrays by the names that `parameters` gives.
          task_ids: ids in [0, n_tasks), which the caller has checked, in an array of any shape.
          sizes: numbers of tasks, splits and skills.
          uniform: draws from U(0, 1) for a shape while training; None in evaluation.

        Returns:
          `[*rows, splits, skills]`, or `[splits, skills]` where the mix is the same for every task.
        """
