"""The two files in which a run's folder keeps its configuration, as texts."""

import dataclasses
from collections.abc import Callable, Sequence

import gin

from poly_jax.configurables import import_configurables
from poly_jax.configuration.gin_state import GinState

_WIDTH = 100


def config_text() -> str:
    """The bindings that gin holds, as the gin file that binds them again."""
    return gin.config_str(max_line_length=_WIDTH)


def operative_text() -> str:
    """Every value that gin has supplied so far, defaults included, as a gin file."""
    return gin.operative_config_str(max_line_length=_WIDTH)


@dataclasses.dataclass(frozen=True)
class Texts:
    """The files in which a run's folder keeps its configuration.

    Attributes:
      config: the text of `config.gin`: what gin files and bindings said.
      operative: makes the text of `operative_config.gin`: every value that was used, defaults included. None
        where nothing was run.
    """

    config: str
    operative: Callable[[], str] | None = None

    def with_bindings(self, lines: Sequence[str]) -> "Texts":
        """These texts with further bindings in `config`, which win over those that are there."""
        import_configurables()
        with GinState().in_force():
            gin.parse_config(self.config)
            gin.parse_config(list(lines))
            return dataclasses.replace(self, config=config_text())
