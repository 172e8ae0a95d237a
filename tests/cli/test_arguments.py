"""The arguments that reach each program: from flags, gin files and the bindings of a run."""

import pytest

import poly_jax
from poly_jax import cli

pytestmark = pytest.mark.usefixtures("own_folder")

TRAIN = ["train", "--output_dir=x", "--gin_file=recipe.gin"]


def some(arguments, *names):
    return {name: arguments[name] for name in names if name in arguments}


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
