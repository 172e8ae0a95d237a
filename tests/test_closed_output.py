"""Programs whose output nobody reads any more, as in `poly-jax ... | head`."""

import os
import subprocess
import sys

import pytest

# A program that does something else in place of its command.
PROGRAM = """
import sys
from poly_jax import cli, errors, stopping
from poly_jax.cli.commands import launch

def run(self, args, config):
    {}

launch.Launch.run = run
sys.argv = ["poly-jax", "launch", "--target=local"]
cli.program()
"""


def ended(lines: str, closed: bool = True, unbuffered: str = "") -> tuple[int, str]:
    """The exit code of a program, whose output may be closed, and its standard error."""
    read, write = os.pipe()
    if closed:
        os.close(read)
    command = [sys.executable, "-c", PROGRAM.format(lines)]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=env, check=False)
    os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("count", [1, 100_000])
def test_the_program_ends_without_a_word(count, unbuffered):
    assert ended(f"print('a' * {count})", unbuffered=unbuffered) == (141, "")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("raise stopping.Stopped('stopped')", (42, "poly-jax: stopped\n")),
        ("raise KeyboardInterrupt", (130, "")),
        ("raise errors.UserError('wrong')", (1, "poly-jax: error: wrong\n")),
    ],
    ids=["preempted", "interrupted", "an error"],
)
def test_a_program_that_ends_otherwise_keeps_its_exit_code_and_its_line(end, expected):
    assert ended(f"print('a'); {end}") == expected


def test_a_broken_pipe_to_something_else_is_an_error():
    assert ended("raise BrokenPipeError(32, 'no storage')", closed=False) == (
        1,
        "poly-jax: error: [Errno 32] no storage\n",
    )
