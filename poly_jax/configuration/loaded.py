"""A loaded configuration: it makes the plain objects that its bindings name, and knows its own text."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin

from poly_jax.configuration import explanation
from poly_jax.configuration.edges import captured, completed
from poly_jax.configuration.gin_state import GinState
from poly_jax.configuration.reach import Key, Reach, Root, check_read
from poly_jax.configuration.texts import Texts, config_text, operative_text
from poly_jax.errors import UserError

_EXPERIMENT = "poly_jax.experiment.Experiment"
_DATA = ("", "poly_jax.experiment.Data")
_NO_DATA = {"mixture": "", "inputs_length": 0, "targets_length": 0}


class Loaded:
    """A configuration that was loaded, separate from gin's process-wide state and from other loads.

    Attributes:
      config: the text of `config.gin`, which loads the same again.
      mesh_is_recorded: whether the device mesh is the one that a run recorded, and the user binds no other.
      given: the bindings that the user gave beside files, apart from those that a file requires.
    """

    def __init__(
        self,
        raw: GinState,
        typed: Callable[[dict], dict] = lambda config: config,
        mesh_is_recorded: bool = False,
        given: Sequence[Key] = (),
    ):
        """Takes what gin has read.

        Args:
          raw: gin's state.
          typed: checks and converts the values of a configuration.
          mesh_is_recorded: the attribute.
          given: the bindings of the user, beside those that a gin file requires and leaves open.

        Raises:
          UserError: as `typed`.
        """
        self._raw, self.given = raw, tuple(given)
        self.mesh_is_recorded = mesh_is_recorded
        with raw.in_force():
            self.config = config_text()
            self._state = completed(raw)
            self._state.config = typed(self._state.config)

    @property
    def texts(self) -> Texts:
        """The two files in which the folder of a run with this configuration records it, as texts."""
        return Texts(self.config, self.operative)

    def operative(self) -> str:
        """Every value that was used so far, defaults included, as a gin file."""
        with self._state.in_force():
            return operative_text()

    def make(self, kind: str | Callable[..., Any], *args: Any, **given: Any) -> Any:
        """The object of a class, or the result of a function, with the arguments that are bound.

        Args:
          kind: a class or function that is registered, or its name in gin, with its scopes.
          *args: arguments that win over bindings.
          **given: likewise.

        Raises:
          UserError: an argument that it needs is neither bound nor given, or has an invalid value.
        """
        with self._making(self._state):
            return gin.get_configurable(kind)(*args, **given)

    def arguments(self, program: str, **given: Any) -> dict[str, Any]:
        """The keyword arguments of a program, made of what is bound.

        Args:
          program: its name in gin, such as "train".
          **given: arguments that win over bindings. `texts` is given where the program takes it.

        Raises:
          UserError: an argument that it needs is neither bound nor given, or has an invalid value.
        """
        configurable = gin.config._REGISTRY.get_match(program)
        parameters = inspect.signature(configurable.wrapped).parameters.values()
        with self._making(self._state):
            found = captured(configurable)(**given)
        if "texts" in (parameter.name for parameter in parameters):
            found = {"texts": self.texts, **found}
        unset = [
            f"{program}.{parameter.name}"
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.name not in found
        ]
        if unset:
            raise explanation.unset(unset)
        return found

    def defaults(self, program: str) -> dict[str, Any]:
        """The arguments of a program that it gives defaults itself, whatever is bound.

        Args:
          program: its name in gin, such as "train".
        """
        configurable = gin.config._REGISTRY.get_match(program)
        parameters = inspect.signature(configurable.wrapped).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    def experiment(self) -> Any:
        """The `Experiment` of a run that is read for its weights, whether or not it binds any data.

        Its data is `Data("", 0, 0)` where no mixture is named: an imported run says what its model is, and
        leaves it to the user to say what to do with it.
        """
        state = GinState(dict(self._state.config), self._state.imports)
        if "mixture" not in state.config.get(_DATA, {}):
            state.config[_DATA] = {**state.config.get(_DATA, {}), **_NO_DATA}
        with self._making(state):
            return gin.get_configurable(_EXPERIMENT)()

    def bound(self, kind: str | type) -> dict[str, Any]:
        """The arguments of a configurable that are bound, made; without its defaults.

        Args:
          kind: its name in gin, or its class. One that is not registered has none.
        """
        find = gin.config._REGISTRY.get_match if isinstance(kind, str) else gin.config._inverse_lookup
        with self._making(self._state):
            return gin.get_bindings(kind) if find(kind) else {}

    def bindings(self) -> list[tuple[str, str]]:
        """For each binding, the name of its configurable in gin, and the binding as text."""
        with self._raw.in_force():
            return [
                (selector.rpartition(".")[2], f"{scope}/{selector}.{name} = {value!r}")
                for (scope, selector), values in self._raw.config.items()
                for name, value in values.items()
            ]

    def reach(self, *roots: Root) -> Reach:
        """What a program reads of this configuration.

        Args:
          *roots: the configurables that the program reads itself; what they refer to is found.
        """
        return Reach.of(self._state.config, roots)

    def check_read(self, *roots: Root) -> None:
        """Check that a program reads each binding that the user gave beside files.

        Bindings of gin files need not be read: a file may serve several programs.

        Args:
          *roots: as in `reach`.

        Raises:
          UserError: the program does not read one of the bindings.
        """
        check_read(self.given, [self.reach(*roots)])

    @contextlib.contextmanager
    def _making(self, state: GinState) -> Iterator[None]:
        try:
            with explanation.explain_unset_bindings(), state.in_force():
                yield
        except UserError as error:
            # gin has appended lines of its own to the message.
            raise UserError(explanation.one_line(str(error))) from error
        except RecursionError as error:
            raise UserError("the configuration refers to itself: an object is a part of itself") from error
        except Exception as error:
            raise explanation.failed_call(error) from error


def current() -> Loaded:
    """The configuration that gin holds at present, which t5x's programs load themselves."""
    return Loaded(GinState.now())
