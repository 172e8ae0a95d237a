"""Finds gin files: in the current folder, among those that ship with poly_jax, or in a run."""

import functools
import importlib.resources
import io
import os
import pathlib
import re

import gin
from etils import epath
from gin import resource_reader

from poly_jax.configuration.seal import check_seal
from poly_jax.errors import UserError
from poly_jax.files.text_file import COPY, read_text
from poly_jax.suggestion import close_names, did_you_mean

CONFIG_FILE = "config.gin"
# Shipped files that had another name before. Files and commands of users may still have it.
_RENAMED = {
    "recipes/sni/mhr": "recipes/sni/pretrain",
    "recipes/sni/mhr_tiny": "recipes/sni/pretrain_tiny",
    "recipes/t0/tiny": "recipes/sni/tiny_bytes",
    "recipes/t0/tiny_backbone": "recipes/sni/tiny_bytes_backbone",
    "recipes/t0/tiny_multitask": "recipes/sni/tiny_bytes_multitask",
    "routers/ibp_prior": "runs/ibp_prior",
}
_REMOTE = re.compile(r"\w+://")


@functools.cache
def gin_root() -> pathlib.Path:
    """The folder of the gin files that ship with poly_jax, for an installed package and for a checkout."""
    package = pathlib.Path(str(importlib.resources.files("poly_jax")))
    for folder in (package / "gin", package.parent / "gin"):
        if (folder / "models").is_dir():
            return folder
    raise UserError(f"the gin files of poly_jax are not beside {package}; install poly-jax again")


def shipped() -> list[str]:
    """Names of the shipped gin files, relative to `gin_root`."""
    return sorted(file.relative_to(gin_root()).as_posix() for file in gin_root().rglob("*.gin"))


def _is_remote_file(path: str) -> bool:
    return _REMOTE.match(path) is not None and epath.Path(path).is_file()


class _GinFile(io.StringIO):
    """The text of a gin file, with the name that gin's messages say."""

    def __init__(self, path: str) -> None:
        super().__init__(read_text(path, advice="save it as UTF-8"), newline=None)
        self.name = path


@functools.cache
def prepare_lookup() -> None:
    """Make gin look for files, included ones too, in the current folder, then in `gin_root`; gs:// works."""
    # gin's own reader of files says neither which file is not UTF-8 nor what to do, and its reader of Python
    # packages logs an error for every file that is not in the current folder.
    readers = gin.config._FILE_READERS
    others = [reader for reader in readers if reader[0] not in (open, resource_reader.system_path_reader)]
    readers[:] = [(_GinFile, os.path.isfile), *others, (_GinFile, _is_remote_file)]
    gin.add_config_file_search_path(str(gin_root()))


def find(name: str) -> str:
    """Path of a gin file given by a user, looked up as `prepare_lookup` says.

    Raises:
      UserError: there is no such file; the message names the shipped files with similar names.
    """
    if _is_remote_file(name):
        return name
    for folder in ("", str(gin_root())):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise UserError(missing(name))


def missing(name: str) -> str:
    """The error message for a gin file `name` that is not found."""
    if os.path.isabs(name) or _REMOTE.match(name):
        return f"there is no gin file {name!r}; check the path"
    stem = name.removeprefix("gin/").removesuffix(".gin")
    if stem in _RENAMED:
        return f"{name!r} is now {_RENAMED[stem] + '.gin'!r}"
    stems = [other.removesuffix(".gin") for other in shipped()]
    close = [other for other in stems if os.path.basename(other) == os.path.basename(stem)]
    close = close or close_names(stem, stems)
    advice = did_you_mean(close, shown="{}.gin".format) or "check the path"
    return f"there is no gin file {name!r} in the current folder or in {gin_root()}; {advice}"


def run_config(run: str | os.PathLike) -> str:
    """Path of the configuration that a run left in its folder.

    Args:
      run: the output folder of a run, or a step in it.

    Raises:
      UserError: the folder does not exist, neither it nor the two folders above it hold a `config.gin`, or
        that file is empty or has changed since the run wrote it.
    """
    folder = epath.Path(run if _REMOTE.match(str(run)) else os.path.abspath(run))
    if not folder.is_dir():
        raise UserError(f"there is no folder {run}; give the output folder of a training run")
    for candidate in (folder, folder.parent, folder.parent.parent):
        if (candidate / CONFIG_FILE).is_file():
            path = os.fspath(candidate / CONFIG_FILE)
            check_seal(read_text(path, advice=COPY), path)
            return path
    raise UserError(
        f"{run} is not a run: no {CONFIG_FILE} there or above; give the output folder of a run or a step in"
        " it"
    )
