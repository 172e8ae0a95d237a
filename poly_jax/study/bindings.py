"""The user's bindings on top of the recipes of a study."""

from collections.abc import Iterable, Sequence

from poly_jax import configuration
from poly_jax.study.methods import MultitaskMethod


def check_bindings(methods: Iterable[MultitaskMethod], bindings: Sequence[str]) -> None:
    """Check bindings before a study begins.

    Args:
      methods: the methods that the study trains.
      bindings: gin bindings on top of the methods' recipes.

    Raises:
      UserError: a binding is malformed or names nothing, or no method reads it while it is trained.
    """
    if bindings:
        loads = [configuration.load([recipe], bindings) for recipe in {method.recipe for method in methods}]
        configuration.check_read(loads[0].given, [loaded.reach("train") for loaded in loads])
