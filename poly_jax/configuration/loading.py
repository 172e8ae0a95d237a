"""Loading gin files and `--gin.NAME=VALUE` bindings, and checking what gin itself does not."""

import contextlib
import dataclasses
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence

import gin

from poly_jax.configurables import import_configurables
from poly_jax.configuration import explanation, files
from poly_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a user gave on the command line to configure a program.

    Attributes:
      gin_files: paths, in order.
      bindings: `NAME=VALUE` of every `--gin.NAME=VALUE`, in order.
    """

    gin_files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()

    def load(self, *first: str, run: str | None = None) -> None:
        """Load the configuration of `run`, the gin files `first`, then what the user gave.

        Raises:
          UserError: as `load`; or `run` holds no configuration.
        """
        before = () if run is None else (files.run_config(run),)
        load((*before, *first, *self.gin_files), self.bindings)


def load(gin_files: Sequence[str], bindings: Sequence[str] = ()) -> None:
    """Replace gin's configuration by that of the files, in order, and then of the bindings.

    Args:
      gin_files: paths, looked up in the current folder and then among the shipped files. Modules that they
        import may be in the current folder as well.
      bindings: `NAME=VALUE`, where NAME is `CONFIGURABLE.PARAMETER` (maybe in scopes) or a macro.

    Raises:
      UserError: a file is missing or cannot be parsed; a binding is malformed or names nothing; a macro is
        used and has no value; a binding that a file marks as required (`%gin.REQUIRED`) is not given.
    """
    paths = [files.find(name) for name in gin_files]
    import_configurables()
    files.prepare_lookup()
    if "" not in sys.path:
        # Modules that gin files import are looked up in the current folder too, which `poly-jax` is not in.
        sys.path.append("")
    gin.clear_config()
    for path in paths:
        _parse(gin.parse_config_file, path, path)
    defined = _macros_defined()
    for binding in bindings:
        _parse(gin.parse_config, binding, f"--gin.{binding}")
    _check_overridden_macros(bindings, defined)
    _check_unset()
    with gin.unlock_config():  # and leave it so: what a program imports later may register configurables.
        gin.finalize()


@contextlib.contextmanager
def instead(*gin_files: str) -> Iterator[None]:
    """Within it gin's configuration is that of these files, and afterwards what it was.

    Raises:
      UserError: as `load`.
    """
    before = gin.config_str()
    try:
        load(gin_files)
        yield
    finally:
        gin.clear_config()
        gin.parse_config(before)


def _parse(parse, text: str, source: str) -> None:
    try:
        parse(text)
    except (ValueError, KeyError, OSError, ImportError, SyntaxError, tokenize.TokenError) as error:
        raise explanation.explain(error, source) from error


def _macros_defined() -> set[str]:
    return {scope for scope, selector in gin.config._CONFIG if selector == "gin.macro"}


def _references(value: object, selector: str) -> list[str]:
    """Names that `value` refers to by `%NAME`: macros for "gin.macro", constants for "gin.constant"."""
    references = gin.config.iterate_references({"": value})
    return ["/".join(reference.scopes) for reference in references if reference.selector == selector]


def _check_overridden_macros(bindings: Iterable[str], defined: set[str]) -> None:
    """A binding of a macro that no gin file defines and nothing uses is a misspelt name."""
    known = defined | set(_references(gin.config._CONFIG, "gin.macro"))
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if "." in name.rpartition("/")[2] or name in known:
            continue
        owners = [owner for owner, names in explanation.parameters().items() if name in names]
        advice = explanation.similar(name, known) or "".join(
            f"; did you mean --gin.{owner}.{name}?" for owner in owners[:1]
        )
        raise UserError(f"--gin.{binding}: no gin file defines or uses the macro {name!r}{advice}")


def _check_unset() -> None:
    """Every macro that is used has a value, and nothing is left at `%gin.REQUIRED`."""
    defined, required = _macros_defined(), []
    for (scope, selector), values in gin.config._CONFIG.items():
        for parameter, value in values.items():
            name = scope if selector == "gin.macro" else _binding_name(scope, selector, parameter)
            for macro in _references(value, "gin.macro"):
                if macro not in defined:
                    advice = explanation.similar(macro, defined) or f"; add --gin.{macro}=VALUE"
                    raise UserError(f"{name} is bound to %{macro}, which has no value{advice}")
            if "gin.REQUIRED" in _references(value, "gin.constant"):
                required.append(name)
    if required:
        raise explanation.unset(required)


def _binding_name(scope: str, selector: str, parameter: str) -> str:
    name = f"{gin.config._REGISTRY.minimal_selector(selector)}.{parameter}"
    return f"{scope}/{name}" if scope else name
