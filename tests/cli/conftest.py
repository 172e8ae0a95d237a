"""Programs whose calls are recorded in place of being run, and a run that is only a configuration."""

import importlib
import types

import pytest

from poly_jax.configurables import import_configurables

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


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The programs, replaced by stand-ins that record their arguments or raise `calls.error` if it is set."""
    import_configurables()  # Before the programs are replaced: gin needs their real parameters.
    (tmp_path / "recipe.gin").write_text(RECIPE)
    seen = types.SimpleNamespace(error=None)
    for name, program_of in PROGRAMS.items():
        module, function = program_of.split(":")

        def program(*_, name=name, **arguments):
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
