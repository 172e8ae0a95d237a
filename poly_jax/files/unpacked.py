"""Unpacks the files that a program needs from a zip or tar archive, once, into the user's cache folder."""

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import platformdirs
from etils import epath

from poly_jax.errors import UserError

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_FETCH = "fetch the archive again"
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    # What zipfile raises for encrypted files and for unknown compression.
    *(NotImplementedError, RuntimeError),
)
_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    **dict.fromkeys((".tgz", ".gz"), gzip.open),
    **dict.fromkeys((".tbz", ".tbz2", ".bz2"), bz2.open),
    **dict.fromkeys((".txz", ".xz"), lzma.open),
}
_READ = 1 << 20


def is_archive(path: epath.PathLike) -> bool:
    """Whether a path is a file whose name says that it is a zip or tar archive."""
    return _ARCHIVE.search(os.fspath(path)) is not None and epath.Path(path).is_file()


def unpacked(archive: epath.PathLike, wanted: re.Pattern[str]) -> epath.Path:
    """Return a folder with the files of an archive whose names match a pattern.

    The folder is made once for each archive, which is known by its path, size and time of change. It is in
    the user's cache folder, which the variable XDG_CACHE_HOME may change.

    Args:
      archive: the archive, local or remote (gs://).
      wanted: pattern that is searched in the names of files. Its group 1 is the place of a file in the
        folder.

    Raises:
      UserError: the archive is damaged or has no such file, or the folder cannot be written.
    """
    path = epath.Path(archive)
    cache = platformdirs.user_cache_path("poly_jax") / "unpacked"
    try:
        stat = path.stat()
        known = f"{os.path.abspath(path)} {stat.length} {stat.mtime} {wanted.pattern}"
        folder = cache / hashlib.sha256(known.encode()).hexdigest()[:16]
        if not folder.is_dir():
            print(f"{archive} is unpacked to {folder} ...", file=sys.stderr, flush=True)
            cache.mkdir(parents=True, exist_ok=True)
            partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
            try:
                _unpack(path, wanted, partial)
                _appear(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except _DAMAGED as error:
        raise UserError(f"{archive} is damaged ({' '.join(str(error).split())[:200]}); {_FETCH}") from None
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked to {cache}: {error.strerror or error}") from error
    return epath.Path(folder)


def _appear(partial: pathlib.Path, folder: pathlib.Path) -> None:
    """Rename the folder when it is complete, unless another process was faster."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _unpack(path: epath.Path, wanted: re.Pattern[str], folder: pathlib.Path) -> None:
    count = 0
    with path.open("rb") as file:
        for name, content in _members(path, file):
            # Only ordinary names are taken, so that no file is written elsewhere.
            match = wanted.search(name)
            if match is None or ".." in pathlib.PurePosixPath(match[1]).parts:
                continue
            place = folder / match[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            with content as read, place.open("wb") as written:
                shutil.copyfileobj(read, written)
            count += 1
    if not count:
        raise UserError(f"{path} has no file like {wanted.pattern!r}; give another archive")


def _members(path: epath.Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name of each ordinary file in an archive and its opened content."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, opened.open(entry)
        return
    opener = next((_OPENERS[end] for end in _OPENERS if path.name.lower().endswith(end)), None)
    with contextlib.nullcontext(file) if opener is None else opener(file) as plain:
        with tarfile.open(fileobj=plain, mode="r:" if opener is None else "r|") as opened:
            for member in opened:
                if member.isfile() and (content := opened.extractfile(member)) is not None:
                    yield member.name, content
            end = opened.offset
        # tarfile takes an archive that was cut off between two files for a whole one.
        if opener is None:
            plain.seek(end)
            if plain.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it has no end")
        while plain.read(_READ):
            pass  # Compressed data that was cut off is an error at its end.
