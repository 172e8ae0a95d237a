"""The command line's help, and what it imports and logs."""

import os
import subprocess
import sys

import pytest

import poly_jax
from poly_jax import cli
from poly_jax.cli.arguments import registry

pytestmark = pytest.mark.usefixtures("own_folder")

COMMANDS = sorted(registry())
HEAVY = ("jax", "flax", "tensorflow", "seqio", "orbax", "matplotlib")


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", ["import poly_jax", "import poly_jax.cli", "import poly_jax.configuration"])
def test_importing_the_command_line_imports_nothing_heavy(code):
    done = python(f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    done = python(
        "import atexit, sys; import poly_jax.cli\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr))\n"
        f"poly_jax.cli.main({arguments})"
    )
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_xla_and_tensorflow_log_nothing_unless_the_user_asks():
    code = (
        "import os; from poly_jax import cli\n"
        "cli.main(['eval', '--run=nowhere'])\n"
        "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    for asked, expected in (({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**env, **asked}
        )
        assert done.stdout.strip() == expected
        assert done.stderr.count("\n") == 1


def test_help_names_every_command_and_the_debug_variable(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name} " in shown or f"\n    {name}\n" in shown for name in COMMANDS)
    assert "POLY_JAX_DEBUG" in shown
    assert "--gin.NAME=VALUE" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_says_how_to_configure_it(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--gin_file" in shown
    assert "--gin.NAME=VALUE" in shown
    assert f"example:\n  poly-jax {name}" in shown


def test_version_is_the_version_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"poly-jax {poly_jax.__version__}\n"
