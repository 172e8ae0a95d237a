"""Keeps compiled programs between commands, so that a command starts sooner when it is run again."""

import contextlib
import hashlib
import os
import pathlib
import platform

import platformdirs

_BYTES = 4 * 2**30
# The ends of the names of a program and of its time of use.
_PROGRAM, _USED = "-cache", "-atime"
_CPU = pathlib.Path("/proc/cpuinfo")


def keep_compiled_programs() -> None:
    """Turn on JAX's persistent compilation cache for this process and its children.

    It is in the user's cache folder. JAX's keys hold the program, the compiler's flags, the devices and the
    versions of JAX and XLA. JAX reads these settings when it is imported. `JAX_COMPILATION_CACHE_DIR` chooses
    another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # Code for one CPU may not run on another, and a home folder may be shared by several machines.
    folder = platformdirs.user_cache_path("poly_jax") / "compiled" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # A user without a home folder compiles every time.
    if not os.access(folder, os.W_OK):
        return
    _delete_unfinished(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # Least recently used programs are deleted beyond this size. In a folder that was filled without a limit,
    # JAX would look for the times of use in vain.
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_BYTES))


def _delete_unfinished(folder: pathlib.Path) -> None:
    """Delete programs that were not written to their end, because a process was killed or the disk was full.

    JAX neither reads nor replaces these, and writes no other program where the time of use of one is missing
    (`jax._src.lru_cache`, jax 0.10.2).
    """
    if not _unfinished(folder):
        return
    import filelock  # Nothing else needs it before JAX does.

    # Another process may be writing one of them: then it holds JAX's lock.
    lock = filelock.FileLock(folder / ".lockfile", timeout=0)
    with contextlib.suppress(OSError, filelock.Timeout), lock:
        for program in _unfinished(folder):
            program.unlink(missing_ok=True)


def _unfinished(folder: pathlib.Path) -> list[pathlib.Path]:
    sizes = {}
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # Another process may delete it.
            sizes[entry.name] = entry.stat().st_size
    programs = [name for name in sizes if name.endswith(_PROGRAM)]
    # The time of use is written last.
    return [
        folder / name
        for name in programs
        if not sizes[name] or not sizes.get(name.removesuffix(_PROGRAM) + _USED)
    ]


def _processor() -> str:
    """A name for this kind of CPU, of the instructions that it has."""
    lines = _CPU.read_text().splitlines() if _CPU.exists() else [platform.processor()]
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{hashlib.sha256(' '.join(told or lines).encode()).hexdigest()[:12]}"
