"""Compiled programs are kept between commands, where the user says or in the user's cache folder."""

import os
import pathlib
import subprocess
import sys

import filelock
import pytest

from poly_jax.cli import compilation_cache
from poly_jax.cli.compilation_cache import keep_compiled_programs

SETTINGS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
COMPILE = """
from poly_jax.cli.compilation_cache import keep_compiled_programs
keep_compiled_programs()
import jax
events = []
jax.monitoring.register_event_listener(lambda name, **details: events.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3 + 1)(2.0)
print(sum(name == "/jax/compilation_cache/cache_hits" for name in events))
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # What a test sets is undone even where nothing was set before.
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_second_process_finds_what_the_first_compiled():
    hits = [
        int(subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0
    assert hits[1] > 0


def test_the_user_s_own_settings_stay(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"


def test_processors_of_other_instructions_have_other_folders(monkeypatch, tmp_path):
    folders = set()
    for flags in ("sse avx2", "sse"):
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags: {flags}\nprocessor: 1\nflags: {flags}\n")
        monkeypatch.setattr(compilation_cache, "_CPU", tmp_path / "cpuinfo")
        keep_compiled_programs()
        folders.add(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert len(folders) == 2


def test_without_a_place_to_write_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_folder_that_cannot_be_written_is_left_alone(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # Root may write anywhere.
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("broken", ["empty", "without its time of use"])
def test_a_program_that_was_not_written_to_its_end_is_compiled_and_kept_again(broken, tmp_path):
    def run():
        return subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)

    run()
    programs = list((tmp_path / "cache").rglob("*-cache"))
    assert programs
    for program in programs:
        if broken == "empty":
            program.write_bytes(b"")
        else:
            program.with_name(program.name.replace("-cache", "-atime")).unlink()
    again, after = run(), run()
    assert again.stderr == after.stderr == ""
    assert [int(again.stdout), int(after.stdout) > 0] == [0, True]


def test_a_program_that_another_process_writes_stays(tmp_path):
    keep_compiled_programs()
    folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    (folder / "step-cache").write_bytes(b"half")
    with filelock.FileLock(folder / ".lockfile"):
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
        keep_compiled_programs()
        assert (folder / "step-cache").exists()
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    keep_compiled_programs()
    assert not (folder / "step-cache").exists()
