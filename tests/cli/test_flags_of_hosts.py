"""The flags and variables that join several hosts in one run."""

import pytest

from poly_jax import cli

pytestmark = pytest.mark.usefixtures("own_folder")

TRAIN = ["train", "--output_dir=x", "--gin_file=recipe.gin"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=a:1"], "given without --num_processes and --process_id; give all three"),
        (["--coordinator=a", "--num_processes=2", "--process_id=0"], "--coordinator=a is not HOST:PORT"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "--process_id=2 is not from 0 to 1"),
    ],
)
def test_incomplete_or_contradictory_flags_of_hosts_are_refused(calls, capsys, flags, message):
    assert cli.main([*TRAIN, *flags]) == 1
    assert message in capsys.readouterr().err
    assert cli.main([*flags, *TRAIN]) == 1  # They may stand before the command, too.
    assert message in capsys.readouterr().err


def test_a_variable_that_is_not_a_number_is_named(calls, capsys, monkeypatch):
    monkeypatch.setenv("POLY_JAX_PROCESS_ID", "first")
    assert cli.main(TRAIN) == 1
    assert "POLY_JAX_PROCESS_ID is 'first'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "shown"), [("train", True), ("export", True), ("demo", False)])
def test_the_help_shows_them_where_several_hosts_may_run_the_command(name, shown, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert ("several hosts:" in (told := capsys.readouterr().out)) == shown
    assert ("--process_id" in told) == shown


def test_a_command_for_one_process_says_so(capsys):
    assert cli.main(["demo", "--coordinator=a:1", "--num_processes=2", "--process_id=0"]) == 1
    assert "poly-jax demo runs in one process" in capsys.readouterr().err
