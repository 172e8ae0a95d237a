"""The command line: what it imports, its exit codes, and the arguments that reach each program."""

import importlib
import os
import subprocess
import sys
import types

import pytest

import poly_jax
from poly_jax import cli
from poly_jax.configurables import import_configurables
from poly_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("own_folder")

PROGRAMS = {
    "train": "poly_jax.training.train:train",
    "adapt": "poly_jax.transfer.adapt:adapt",
    "eval": "poly_jax.evaluation.evaluate:evaluate",
    "infer": "poly_jax.evaluation.infer:infer",
    "demo": "poly_jax.study.demonstration:demo",
    "reproduce": "poly_jax.study.reproduction:reproduce",
    "reproduce_heads": "poly_jax.study.heads:reproduce_heads",
    "reproduce_zero_shot": "poly_jax.study.zero_shot:reproduce_zero_shot",
    "sweep": "poly_jax.sweep.run_sweep:sweep",
    "routing": "poly_jax.analysis.analyse:analyse_routing",
    "data": "poly_jax.inspection.show_data:show_data",
    "plan": "poly_jax.planning.planning:plan",
}
COMMANDS = [name for name in PROGRAMS if "reproduce_" not in name]  # `reproduce` has three programs.
RECIPE = """
include 'runs/multitask.gin'
train.steps = 2
Data.mixture = 'm'
Data.inputs_length = 4
Data.targets_length = 4
T5Config.emb_dim = 8
T5Config.mlp_dim = 8
T5Config.num_heads = 8
"""
TRAIN = ["train", "--output_dir=x", "--gin_file=recipe.gin"]
HEAVY = ("jax", "flax", "tensorflow", "seqio", "orbax", "matplotlib")


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The programs, replaced by stand-ins that record their arguments or raise `calls.error` if it is set."""
    import_configurables()  # Before the programs are replaced: gin needs their real parameters.
    (tmp_path / "recipe.gin").write_text(RECIPE)
    seen = types.SimpleNamespace(error=None)
    for name, program_of in PROGRAMS.items():
        module, function = program_of.split(":")

        def program(name=name, **arguments):
            if seen.error is not None:
                raise seen.error
            setattr(seen, name, arguments)

        monkeypatch.setattr(importlib.import_module(module), function, program)
    return seen


@pytest.fixture
def run(tmp_path):
    """A run folder that holds only a configuration."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.gin").write_text(RECIPE)
    return folder


def some(arguments, *names):
    return {name: arguments[name] for name in names if name in arguments}


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# What is imported.


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


# Exit codes.


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["train"],
        ["train", "--output=x"],
        ["train", "--output_dir=x", "--gin.T5Config.emb_dim", "3"],
        ["train", "--output_dir=x", "stray"],
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
    ("arguments", "expected"),
    [
        (["train", "--output_dir=x", "--gin_file=mine.gin"], "there is no gin file 'mine.gin'"),
        (["train", "--output_dir=x", "--gin.T5Confg.emb_dim=3"], "there is no configurable 'T5Confg'"),
        (["train", "--output_dir=x", "--gin.T5Config.emb_dim=%gin.REQUIRED"], "T5Config.emb_dim is not set"),
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
    assert capsys.readouterr().err == f"poly-jax: error: [Errno 20] Not a directory: '{place}'\n"


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


# Arguments that reach the programs.


def test_flags_reach_the_programs(calls, run):
    folder = str(run)
    assert cli.main(["train", "--output_dir=out", "--gin_file=recipe.gin"]) == 0
    assert some(calls.train, "output_dir", "steps", "seed") == {"output_dir": "out", "steps": 2}
    flags = ["--task=t", "--variant=poly-z", "--shots=16", "--seed=3"]
    assert cli.main(["adapt", f"--run={folder}", "--output_dir=out", *flags]) == 0
    assert calls.adapt["variant"].name == "poly-z"
    assert some(calls.adapt, "run", "output_dir", "task", "shots", "seed") == {
        "run": folder,
        "output_dir": "out",
        "task": "t",
        "shots": 16,
        "seed": 3,
    }
    assert cli.main(["eval", f"--run={folder}", "--mixture=m", "--split=test", "--output_dir=out"]) == 0
    expected = {"run": folder, "mixture": "m", "split": "test", "output_dir": "out"}
    assert some(calls.eval, *expected) == expected
    assert cli.main(["infer", "--run", folder, "--task=t", "--input=a.txt", "--output=b.txt"]) == 0
    expected = {"run": folder, "task": "t", "input": "a.txt", "output": "b.txt"}
    assert some(calls.infer, *expected) == expected
    one = ["sweep", "--methods", "a=runs/x:mhr", "runs/y:full", "--tasks", "s", "t", "--seeds", "4", "5"]
    assert cli.main([*one, "--split=validation", "--output_dir=out", "--gin.T5Config.emb_dim=8"]) == 0
    assert [(m.run, m.variant, m.name) for m in calls.sweep["methods"]] == [
        ("runs/x", "mhr", "a"),
        ("runs/y", "full", ""),
    ]
    assert calls.sweep["tasks"] == ["s", "t"]
    assert calls.sweep["seeds"] == [4, 5]
    assert calls.sweep["split"] == "validation"
    assert calls.sweep["configuration"].bindings == ("T5Config.emb_dim=8",)
    assert cli.main(["demo", "--output_dir=out"]) == 0
    assert calls.demo == {"output_dir": "out", "bindings": ()}
    assert cli.main(["reproduce", "--output_dir=out", "--seeds", "4", "5"]) == 0
    assert calls.reproduce == {"output_dir": "out", "seeds": (4, 5), "bindings": ()}
    assert cli.main(["reproduce", "heads", "--seeds", "4"]) == 0
    assert calls.reproduce_heads == {"output_dir": "runs/heads", "seeds": (4,), "bindings": ()}
    assert cli.main(["reproduce", "zero-shot", "--seeds", "4"]) == 0
    assert calls.reproduce_zero_shot == {"output_dir": "runs/zero_shot", "seeds": (4,), "bindings": ()}


@pytest.mark.parametrize("name", ["train.steps", "train/Optimizer.learning_rate"])
def test_settings_of_training_are_refused_where_a_run_is_adapted(calls, run, capsys, name):
    words = ["adapt", f"--run={run}", "--task=t", "--output_dir=out"]
    assert cli.main([*words, f"--gin.{name}=2"]) == 1
    told = capsys.readouterr().err
    assert f"--gin.{name} is given" in told
    assert f"such as adapt{name.removeprefix('train')}" in told


def test_flags_that_are_not_given_are_left_to_gin_and_the_programs(calls, run):
    # Arguments that the configuration makes even where nothing is bound.
    made = {"experiment", "partitioning"}
    assert cli.main(["adapt", f"--run={run}", "--task=t", "--output_dir=out"]) == 0
    assert set(calls.adapt) == {"run", "task", "output_dir", "texts", "optimizer", "loss", *made}
    assert cli.main(["adapt", f"--run={run}", "--task=t", "--output_dir=out", "--gin.adapt.seed=5"]) == 0
    assert calls.adapt["seed"] == 5
    assert cli.main(["eval", f"--run={run}"]) == 0
    assert set(calls.eval) == {"run", *made}
    assert cli.main(["infer", f"--run={run}", "--task=t"]) == 0
    assert some(calls.infer, "run", "task", "input", "output") == {
        "run": str(run),
        "task": "t",
        "input": "-",
        "output": "-",
    }
    assert set(calls.infer) == {"run", "task", "input", "output", *made}
    assert cli.main(["demo"]) == 0
    assert calls.demo == {"output_dir": "runs/demo", "bindings": ()}


@pytest.mark.parametrize("program", ["eval", "infer", "adapt"])
def test_a_run_of_other_devices_is_read_on_a_mesh_that_the_devices_here_can_form(calls, run, program):
    words = {"eval": [], "infer": ["--task=t"], "adapt": ["--task=t", "--output_dir=out"]}[program]
    config = run / "config.gin"
    config.write_text(config.read_text() + "\nPartitioning.fsdp = 2\nPartitioning.model = 4\n")
    assert cli.main([program, f"--run={run}", *words]) == 0
    assert getattr(calls, program)["partitioning"] == poly_jax.Partitioning(fsdp=1, model=1)
    # What the user binds is used as it is, even where the run's folder has the same.
    for fsdp in (2, 3):
        assert cli.main([program, f"--run={run}", *words, f"--gin.Partitioning.fsdp={fsdp}"]) == 0
        assert getattr(calls, program)["partitioning"] == poly_jax.Partitioning(fsdp=fsdp, model=4)


def test_a_run_is_configured_by_its_own_config_then_the_files_then_the_flags(calls, run, tmp_path):
    (tmp_path / "mine.gin").write_text("T5Config.mlp_dim = 16\nT5Config.num_heads = 16\n")
    step = run / "checkpoints" / "100"
    step.mkdir(parents=True)
    assert cli.main(["eval", "--gin.T5Config.num_heads=32", f"--run={step}", "--gin_file=mine.gin"]) == 0
    config = calls.eval["experiment"].model
    assert (config.emb_dim, config.mlp_dim, config.num_heads) == (8, 16, 32)


def test_several_gin_files_are_read_in_order(calls, tmp_path):
    (tmp_path / "a.gin").write_text("T5Config.mlp_dim = 1\nT5Config.emb_dim = 1\n")
    (tmp_path / "b.gin").write_text("T5Config.mlp_dim = 2\n")
    assert cli.main([*TRAIN, "--gin_file=a.gin", "--gin_file", "b.gin"]) == 0
    config = calls.train["experiment"].model
    assert (config.emb_dim, config.mlp_dim) == (1, 2)


@pytest.mark.usefixtures("own_folder")
def test_a_very_long_error_is_shortened(capsys):
    assert cli.main(["train", f"--gin_file=runs/{'x' * 5000}.gin", "--output_dir=out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 4100
    assert line.startswith("poly-jax: error: ")


# Several hosts.


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
