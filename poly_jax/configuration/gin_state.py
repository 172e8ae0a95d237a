"""gin's process-wide state, set aside while another configuration is in force and put back afterwards."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import gin

Config = dict[tuple[str, str], dict[str, Any]]


@dataclasses.dataclass
class GinState:
    """The part of gin's state that belongs to one configuration.

    Attributes:
      config: by scope and full name of a configurable, its bindings.
      imports: import statements of the gin files.
      operative: as `config`, the values that were used so far.
      singletons: objects that the configuration makes once.
    """

    config: Config = dataclasses.field(default_factory=dict)
    imports: set[Any] = dataclasses.field(default_factory=set)
    operative: Config = dataclasses.field(default_factory=dict)
    singletons: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def now(cls) -> "GinState":
        """A copy of what gin holds at present."""
        return cls(
            {key: dict(values) for key, values in gin.config._CONFIG.items()},
            set(gin.config._IMPORTS),
            {key: dict(values) for key, values in gin.config._OPERATIVE_CONFIG.items()},
            dict(gin.config._SINGLETONS),
        )

    def _enter(self) -> None:
        for held, content in (
            (gin.config._CONFIG, self.config),
            (gin.config._IMPORTS, self.imports),
            (gin.config._OPERATIVE_CONFIG, self.operative),
            (gin.config._SINGLETONS, self.singletons),
        ):
            held.clear()
            held.update(content)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Put this state into gin for the block, record what the block uses, and then put gin's own back."""
        before, locked = GinState.now(), gin.config_is_locked()
        gin.config._set_config_is_locked(False)
        self._enter()
        try:
            yield
        finally:
            after = GinState.now()
            self.operative, self.singletons = after.operative, after.singletons
            before._enter()
            gin.config._set_config_is_locked(locked)
