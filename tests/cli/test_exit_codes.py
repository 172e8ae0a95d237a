"""The exit codes of the command line, and the one line that an error prints."""

import pytest

from poly_jax import cli
from poly_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("own_folder")

TRAIN = ["train", "--output_dir=x", "--gin_file=recipe.gin"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["train"],
        ["train", "--output=x"],
        ["train", "--output_dir=x", "--gin.T5Config.emb_dim", "3"],
        ["train", "--output_dir=x", "stray"],
        ["train", "--output_dir="],
        ["adapt", "--run=x", "--task=t"],
        ["adapt", "--run=x", "--task=t", "--output_dir=y", "--shots=0"],
        ["adapt", "--run=x", "--task=t", "--output_dir=y", "--shots=few"],
        ["eval"],
        ["infer", "--run=x"],
        ["reproduce", "--seeds", "one"],
        ["routing", "--run=x"],
        ["routing", "--run=x", "--output_dir=y", "--gradients=0"],
        ["data", "--examples=0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: poly-jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--outputs=x", "poly-jax train: error: unrecognized arguments: --outputs=x"),
        ("--gin_file=", "poly-jax train: error: argument --gin_file: the path is empty; give one"),
    ],
)
def test_wrong_usage_shows_the_usage_of_the_command(flag, told, capsys):
    with pytest.raises(SystemExit):
        cli.main([*TRAIN, flag])
    shown = capsys.readouterr().err
    assert shown.startswith("usage: poly-jax train ")
    assert shown.splitlines()[-1] == told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--output_dir=x", "--gin_file=mine.gin"], "there is no gin file 'mine.gin'"),
        (["train", "--output_dir=x", "--gin.T5Confg.emb_dim=3"], "there is no configurable 'T5Confg'"),
        (["train", "--output_dir=x", "--gin.T5Config.emb_dim=%gin.REQUIRED"], "T5Config.emb_dim is not set"),
        (["train", "--output_dir=x", "--gin.SharedRouter.x=3"], "has no parameter 'x'; it has none"),
        (["eval", "--run=nowhere"], "there is no folder nowhere; give"),
        (["infer", "--run=.", "--task=t"], ". is not a run: no config.gin"),
    ],
)
def test_a_wrong_value_prints_one_line_and_exits_with_1(arguments, expected, calls, capsys):
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("poly-jax: error: ")
    assert expected in shown.err
    assert shown.err.count("\n") == 1


def test_an_unknown_variant_prints_one_line_with_close_names(calls, run, capsys):
    words = ["adapt", f"--run={run}", "--task=t", "--output_dir=y", "--variant=soup-selectd"]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == (
        "poly-jax: error: variant 'soup-selectd' is not known; did you mean 'soup-selected'?\n"
    )


def test_a_user_error_in_a_program_prints_one_line(calls, capsys):
    calls.error = UserError(
        "folder is 'x', which is empty;\n  give another\n  In call to configurable 'train' (<f>)"
    )
    assert cli.main(TRAIN) == 1
    assert capsys.readouterr().err == "poly-jax: error: folder is 'x', which is empty; give another\n"


def test_an_unset_binding_in_a_program_prints_one_line(calls, capsys):
    calls.error = RuntimeError("Required bindings for `train` not provided in config: ['mixture', 'steps']")
    assert cli.main(TRAIN) == 1
    assert capsys.readouterr().err.startswith(
        "poly-jax: error: train.mixture and train.steps are not set; add --gin.train.mixture=VALUE"
    )


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_traceback_is_shown_on_request(value, shown, calls, capsys, monkeypatch):
    monkeypatch.setenv("POLY_JAX_DEBUG", value)
    calls.error = UserError("no")
    assert cli.main(TRAIN) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "poly-jax: error: no"
    assert (lines[0] == "Traceback (most recent call last):") == shown


def test_a_folder_that_cannot_be_made_prints_one_line(calls, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run"
    with pytest.raises(OSError, match="Not a directory") as caught:
        place.mkdir()
    calls.error = caught.value
    assert cli.main(["train", f"--output_dir={place}", "--gin_file=recipe.gin"]) == 1
    advice = "check the path, its permissions and the room on its disk"
    assert capsys.readouterr().err == f"poly-jax: error: {place}: not a directory; {advice}\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.28 TiB"),
        # What JAX raises is a RuntimeError of this text.
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8000000000000 bytes."),
    ],
)
def test_a_lack_of_memory_prints_one_line_that_says_what_to_do(error, calls, capsys):
    calls.error = error
    assert cli.main(TRAIN) == 1
    message = capsys.readouterr().err
    assert message.startswith("poly-jax: error: the memory of this machine is not enough (")
    assert str(error) in message
    assert message.endswith(
        "choose a smaller batch size or model, shorter sequences, or more train.microbatches\n"
    )


def test_an_error_in_the_program_itself_keeps_its_traceback(calls):
    calls.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(TRAIN)


def test_an_interrupt_prints_nothing(calls, capsys):
    calls.error = KeyboardInterrupt()
    assert cli.main(TRAIN) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_keeps_its_traceback(calls):
    calls.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(TRAIN)


@pytest.mark.usefixtures("own_folder")
def test_a_very_long_error_is_shortened(capsys):
    assert cli.main(["train", f"--gin_file=runs/{'x' * 5000}.gin", "--output_dir=out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 4100
    assert line.startswith("poly-jax: error: ")
