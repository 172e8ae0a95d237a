"""Loading gin files and `--gin.NAME=VALUE` bindings."""

import dataclasses
import sys
from collections.abc import Callable, Sequence

import gin

from poly_jax.configurables import import_configurables
from poly_jax.configuration import checks, explanation, files
from poly_jax.configuration.checks import binding_name
from poly_jax.configuration.gin_state import GinState
from poly_jax.configuration.loaded import Loaded
from poly_jax.configuration.reach import Key

_MESH = "poly_jax.training.mesh.Partitioning"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The files and bindings with which a command line configures a program.

    Attributes:
      gin_files: paths, in order.
      bindings: `NAME=VALUE` of every `--gin.NAME=VALUE`, in order.
    """

    gin_files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()

    def load(self, *first: str, run: str | None = None, unset_is_empty: bool = False) -> Loaded:
        """Load the configuration of `run`, the gin files `first`, then what the user gave.

        Args:
          *first: paths of gin files.
          run: folder of a run.
          unset_is_empty: as in `load`.

        Raises:
          UserError: as `load`; or `run` holds no configuration.
        """
        recorded = None if run is None else files.run_config(run)
        return load((*first, *self.gin_files), self.bindings, unset_is_empty, recorded)


def load(
    gin_files: Sequence[str],
    bindings: Sequence[str] = (),
    unset_is_empty: bool = False,
    recorded: str | None = None,
) -> Loaded:
    """Load the files, in order, and then the bindings. What gin holds otherwise is left as it is.

    Args:
      gin_files: paths, looked up in the current folder and then among the shipped files. Modules that they
        import may be in the current folder as well.
      bindings: `NAME=VALUE`, where NAME is `CONFIGURABLE.PARAMETER` (maybe in scopes) or a macro.
      unset_is_empty: whether a binding that a file marks as required, and nobody gives, becomes "": for
        programs that do not read the data whose place such bindings say.
      recorded: path of the configuration that a run recorded, which is loaded before the files.

    Raises:
      UserError: a file is missing or cannot be parsed; a module that it imports fails; a binding is
        malformed, names nothing, or has a value of another type than its parameter; a macro is used and has
        no value; a binding that a file marks as required (`%gin.REQUIRED`) is not given.
    """
    paths = [files.find(name) for name in gin_files]
    import_configurables()
    files.prepare_lookup()
    if "" not in sys.path:
        # Modules that gin files import are looked up in the current folder too, which `poly-jax` is not in.
        sys.path.append("")
    with GinState().in_force():
        if recorded is not None:
            _parse(gin.parse_config_file, recorded, recorded)
        # What the user binds for the mesh is told apart from what the run recorded.
        mesh = {key: gin.config._CONFIG.pop(key) for key in list(gin.config._CONFIG) if key[1] == _MESH}
        for path in paths:
            _parse(gin.parse_config_file, path, path)
        defined = checks.macros_defined(gin.config._CONFIG)
        open_names = checks.left_open(gin.config._CONFIG)
        for binding in bindings:
            _parse(gin.parse_config, binding, f"--gin.{binding}")
        mesh_is_recorded = bool(mesh) and not any(key[1] == _MESH for key in gin.config._CONFIG)
        for key, values in mesh.items():
            gin.config._CONFIG[key] = {**values, **gin.config._CONFIG.get(key, {})}
        checks.check_overridden_macros(gin.config._CONFIG, bindings, defined)
        if unset_is_empty:
            for name in checks.required(gin.config._CONFIG):
                _parse(gin.parse_config, f"{name} = ''", name)
        checks.check_unset(gin.config._CONFIG)
        gin.finalize()
        raw = GinState.now()
        given = [key for key in map(_bound_by, bindings) if key and binding_name(*key) not in open_names]
    return Loaded(raw, checks.typed, mesh_is_recorded, given)


def _bound_by(binding: str) -> Key | None:
    """The binding that a `NAME=VALUE` sets; None where NAME is a macro."""
    name = binding.partition("=")[0].strip()
    if "." not in name.rpartition("/")[2]:
        return None
    key = gin.config.ParsedBindingKey.parse(name)
    return key.scope, key.complete_selector, key.arg_name


def _parse(parse: Callable[[str], object], text: str, source: str) -> None:
    try:
        parse(text)
    # gin files import modules of the user, which may raise anything, and may call `sys.exit`.
    except (Exception, SystemExit) as error:
        raise explanation.explain(error, source) from error
