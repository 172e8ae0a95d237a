"""Parts of a configuration beyond its text: objects made by default, and functions that are called later."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import gin

from poly_jax.configurables import MADE_BY_DEFAULT
from poly_jax.configuration.gin_state import Config, GinState
from poly_jax.errors import UserError


def captured(configurable: Any) -> Callable[..., dict[str, Any]]:
    """A function that returns the arguments with which gin would call a configurable.

    Args:
      configurable: an entry of gin's registry.
    """
    return gin.config._make_gin_wrapper(
        lambda **arguments: arguments,
        configurable.wrapped,
        configurable.name,
        configurable.selector,
        configurable.allowlist,
        configurable.denylist,
    )


@dataclasses.dataclass(frozen=True)
class Later:
    """A function that a configuration names without calling it, with its bindings.

    They are the bindings of the configuration that named it, whatever has been loaded since. Objects among
    them are made when it is called: a vocabulary that is never used need not exist.

    Attributes:
      function: the plain function.
      name: its name in gin.
      bindings: the bindings as text, by which two of these are compared.
    """

    function: Callable[..., Any]
    name: str
    bindings: tuple[str, ...]
    _state: GinState = dataclasses.field(repr=False, compare=False)
    _scopes: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def __call__(self, *args: Any, **given: Any) -> Any:
        """Calls the function; arguments that are given win over bindings."""
        with self._state.in_force(), _scoped(self._scopes):
            bound = captured(gin.config._REGISTRY[self.name])(**given)
        return self.function(*args, **bound)


class _LaterReference(gin.config.ConfigurableReference):
    """A reference that becomes a `Later`, where gin's own function would ask gin for bindings when called."""

    def __init__(self, reference: Any, state: GinState):
        self.__dict__.update(vars(reference))
        self._state = state

    def __deepcopy__(self, memo: Any) -> Any:
        scopes = tuple(self.scopes) or tuple(gin.config.current_scope())
        with _scoped(scopes):
            bound = gin.get_bindings(self.configurable.selector, resolve_references=False)
        lines = tuple(sorted(f"{name} = {value!r}" for name, value in bound.items()))
        return Later(self.configurable.wrapped, self.configurable.selector, lines, self._state, scopes)


class _AdaptersReference(gin.config.ConfigurableReference):
    """`@Adapters` in `Experiment.adapters`, whose number of tasks comes from the task table later."""

    def __init__(self, reference: Any):
        self.__dict__.update(vars(reference))
        self._evaluate = True

    def __deepcopy__(self, memo: Any) -> Any:
        return self.scoped_configurable_fn(n_tasks=1)


@contextlib.contextmanager
def _scoped(scopes: tuple[str, ...]) -> Iterator[None]:
    with gin.config_scope(list(scopes)) if scopes else contextlib.nullcontext():
        yield


def completed(state: GinState) -> GinState:
    """A state in which gin makes plain objects of all that a configuration names.

    Parameters of `MADE_BY_DEFAULT` that are not bound are bound to what is made by default.
    `Experiment.adapters`, which names its class, is bound to an object. Functions that are named without
    being called become `Later`.
    """
    done = GinState(imports=set(state.imports))
    for key, values in state.config.items():
        done.config[key] = {
            name: _with_later(_adapters(key, name, value, state.config), done)
            for name, value in values.items()
        }
    for selector, defaults in MADE_BY_DEFAULT.items():
        if selector not in gin.config._REGISTRY:  # In t5x's programs, ours are not registered.
            continue
        for (_, bound), values in done.config.items():
            for name in defaults if bound == selector else ():
                if name in values and values[name] is None:
                    del values[name]
        values = done.config.setdefault(("", selector), {})
        for name, text in defaults.items():
            values.setdefault(name, gin.config.parse_value(text))
    return done


def _adapters(key: tuple[str, str], name: str, value: Any, config: Config) -> Any:
    if (key[1], name) != ("poly_jax.experiment.Experiment", "adapters"):
        return value
    value = followed(value, config)
    return _AdaptersReference(value) if isinstance(value, gin.config.ConfigurableReference) else value


def followed(value: Any, config: Config) -> Any:
    """The value of a macro, where `value` is a macro that has one; else `value`."""
    seen = set()
    while isinstance(value, gin.config.ConfigurableReference) and value.selector == "gin.macro":
        key = ("/".join(value.scopes), "gin.macro")
        if key not in config:
            return value
        if key in seen:
            raise UserError(f"the macro {key[0]!r} is bound to itself; give it a value")
        seen.add(key)
        value = config[key]["value"]
    return value


def _with_later(value: Any, state: GinState) -> Any:
    """The value, with every reference in it that is not called replaced by a `_LaterReference`."""
    if isinstance(value, _AdaptersReference):
        return value
    if isinstance(value, gin.config.ConfigurableReference):
        return value if value.evaluate else _LaterReference(value, state)
    if isinstance(value, list | tuple):
        return type(value)(_with_later(part, state) for part in value)
    if isinstance(value, dict):
        return {key: _with_later(part, state) for key, part in value.items()}
    return value
