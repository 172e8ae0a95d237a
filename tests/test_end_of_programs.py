"""A program ends with its exit code when all is done, and does not wait for Python to take itself apart."""

import subprocess
import sys

import pytest


def ended(*lines: str) -> tuple[int, list[str]]:
    """The exit code of the program `poly-jax` with these lines in place of a command, and what it prints."""
    script = [
        "import atexit, logging.handlers, sys, threading, time",
        "import poly_jax.cli as cli",
        "def command():",
        *(f"    {line}" for line in lines),
        "cli.main = command",
        "cli.program()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("return 0", 0),
        ("return 1", 1),
        ("sys.exit(2)", 2),
        ("raise KeyboardInterrupt", 130),
        ("raise ValueError", 1),
    ],
)
def test_the_exit_code_is_that_of_the_command(last, code):
    assert ended(last)[0] == code


def test_libraries_threads_and_exit_handlers_are_done_and_all_output_is_written_before():
    late = "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"
    code, lines = ended("atexit.register(print, 'handler')", late, "print('command')", "return 0")
    assert (code, lines) == (0, ["command", "thread", "handler"])


def test_messages_that_a_log_holds_back_are_written():
    held = "logging.handlers.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))"
    code, lines = ended(f"logging.getLogger().addHandler({held})", "logging.warning('late')", "return 0")
    assert (code, lines) == (0, ["late"])


def test_modules_are_not_taken_apart():
    kept = "sys.modules['kept'] = type('Kept', (), {'__del__': lambda self: print('taken apart')})()"
    assert ended(kept, "return 0") == (0, [])
