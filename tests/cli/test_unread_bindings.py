"""Bindings of the command line that a command does not read are refused; those of gin files are not."""

import pytest

from poly_jax import cli

pytestmark = pytest.mark.usefixtures("own_folder")

TRAIN = ["train", "--output_dir=x", "--gin_file=recipe.gin"]


def commands(run):
    return {
        "train": TRAIN,
        "data": ["data", "--gin_file=recipe.gin"],
        "adapt": ["adapt", f"--run={run}", "--task=t", "--output_dir=out"],
        "arrow": ["adapt", f"--run={run}", "--task=t", "--output_dir=out", "--variant=arrow"],
        "eval": ["eval", f"--run={run}"],
        "infer": ["infer", f"--run={run}", "--task=t"],
        "routing": ["routing", f"--run={run}", "--output_dir=out"],
    }


@pytest.mark.parametrize(
    ("command", "binding", "told"),
    [
        ("train", "ChoiceLoss.length_norm=1.0", "does not use ChoiceLoss; bind adapt.loss=@ChoiceLoss() or"),
        ("train", "IBPPrior.weight=0.1", "does not use IBPPrior; bind train.prior=@IBPPrior() to use it"),
        (
            "train",
            "foo/Optimizer.learning_rate=1.0",
            "in the scope 'foo'; write --gin.Optimizer.",
        ),
        ("train", "sweep.stack=2", "this command does not read the settings of sweep; leave it out"),
        ("data", "ChoiceLoss.length_norm=1.0", "does not use ChoiceLoss"),
        ("adapt", "train.steps=2", "the settings of train; did you mean --gin.adapt.steps?"),
        ("adapt", "train/Optimizer.learning_rate=1.0", "write --gin.adapt/Optimizer.learning_rate"),
        ("adapt", "ArrowRouter.top_k=2", "this configuration does not use ArrowRouter"),
        ("eval", "Optimizer.learning_rate=1.0", "this configuration does not use Optimizer; leave it out"),
        ("eval", "infer.batch_size=2", "did you mean --gin.evaluate.batch_size?"),
        ("infer", "adapt.steps=2", "this command does not read the settings of adapt"),
        ("routing", "train.steps=2", "this command does not read the settings of train"),
    ],
)
def test_a_binding_that_a_command_does_not_read_is_refused_by_name(
    calls, run, capsys, command, binding, told
):
    assert cli.main([*commands(run)[command], f"--gin.{binding}"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"poly-jax: error: --gin.{binding.partition('=')[0]} is given, and ")
    assert told in shown
    assert shown.count("\n") == 1
    assert not hasattr(calls, command)


@pytest.mark.parametrize(
    ("command", "binding"),
    [
        # A run's configuration is read by the programs that come later, too.
        ("train", "adapt.steps=2"),
        ("train", "adapt/Optimizer.learning_rate=1.0"),
        ("train", "evaluate.batch_size=2"),
        # The flags of a run may be given to what shows its data.
        ("data", "T5Config.dropout_rate=0.1"),
        ("adapt", "infer.batch_size=2"),
        # A scope that binds nothing else takes what is bound outside scopes.
        ("adapt", "Optimizer.learning_rate=1.0"),
        ("arrow", "ArrowRouter.top_k=2"),
        ("eval", "Decoding.n_beams=2"),
        ("routing", "Data.mixture='other'"),
    ],
)
def test_a_binding_that_a_command_reads_directly_or_through_others_is_taken(calls, run, command, binding):
    assert cli.main([*commands(run)[command], f"--gin.{binding}"]) == 0


def test_a_binding_outside_scopes_is_refused_where_a_scope_binds_the_same_parameter(calls, run, capsys):
    config = run / "config.gin"
    config.write_text(config.read_text() + "adapt/Optimizer.learning_rate = 0.1\n")
    words = ["adapt", f"--run={run}", "--task=t", "--output_dir=out", "--gin.Optimizer.learning_rate=1.0"]
    assert cli.main(words) == 1
    assert "outside a scope; write --gin.adapt/Optimizer.learning_rate\n" in capsys.readouterr().err


def test_a_gin_file_may_bind_what_a_command_does_not_read(calls, tmp_path):
    (tmp_path / "shared.gin").write_text("ChoiceLoss.length_norm = 1.0\nfoo/Optimizer.learning_rate = 1.0\n")
    assert cli.main([*TRAIN, "--gin_file=shared.gin"]) == 0


def test_what_a_gin_file_requires_may_be_given_to_a_command_that_does_not_read_it(calls, tmp_path):
    (tmp_path / "open.gin").write_text("prepare.processes = %gin.REQUIRED\n")
    assert cli.main([*TRAIN, "--gin_file=open.gin", "--gin.prepare.processes=2"]) == 0


def test_a_configurable_of_the_users_own_may_be_called_by_their_code(calls, tmp_path):
    (tmp_path / "own_code.py").write_text("import gin\n\n@gin.configurable\ndef own(leaf):\n    pass\n")
    (tmp_path / "own.gin").write_text("import own_code\nown.leaf = @ChoiceLoss()\n")
    words = [*TRAIN, "--gin_file=own.gin"]
    assert cli.main([*words, "--gin.own.leaf=3"]) == 0
    # So may what it refers to.
    assert cli.main([*words, "--gin.ChoiceLoss.lm=0.5"]) == 0


def test_a_number_of_skills_is_refused_where_the_router_fixes_another(calls, capsys):
    words = [*TRAIN, "--gin_file=adapters/lora.gin"]
    for router in ("shared", "private"):
        assert cli.main([*words, f"--gin_file=routers/{router}.gin"]) == 0
        assert cli.main([*words, f"--gin_file=routers/{router}.gin", "--gin.Adapters.n_skills=3"]) == 1
        name = f"{router.title()}Router"
        assert f"n_skills is 3, and {name} fixes the number of skills; leave it" in capsys.readouterr().err
    assert cli.main([*words, "--gin_file=routers/shared.gin", "--gin.Adapters.n_skills=1"]) == 0
    assert cli.main([*words, "--gin_file=routers/mhr.gin", "--gin.Adapters.n_skills=3"]) == 0
