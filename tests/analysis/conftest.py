"""Run folders whose routers and skills are given rather than trained, and examples of their tasks."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

CONFIG = """
Experiment.model = @T5Config()
Experiment.data = @Data()
Experiment.backbone = 'random'
Experiment.adapters = @Adapters

T5Config.vocab_size = 259
T5Config.emb_dim = 8
T5Config.num_heads = 2
T5Config.head_dim = 4
T5Config.mlp_dim = 8
T5Config.num_encoder_layers = 2
T5Config.num_decoder_layers = 1

Adapters.skill = @LoRA()
Adapters.router = @LearnedRouter()
Adapters.n_skills = 3
Adapters.n_splits = 2
Adapters.sites = ('encoder/attention/query', 'decoder/mlp/wo')

Data.mixture = 'routing_all'
Data.inputs_length = 8
Data.targets_length = 4
Data.batch_size = 4
"""

NAMES = ("routing_a", "routing_b", "routing_c", "routing_d")


@pytest.fixture(scope="session")
def tasks():
    """The mixture `routing_all` of four tasks with six examples each; their names."""
    from poly_jax.data import vocabularies
    from poly_jax.data.quiet import seqio, tf

    for name in NAMES:
        feature = seqio.Feature(vocabularies.byte(), add_eos=True)
        words = [f"{name[-1]}{i}" for i in range(6)]

        def dataset(split, shuffle_files, seed=None, words=words):
            return tf.data.Dataset.from_tensor_slices({"inputs": words, "targets": words[::-1]})

        seqio.TaskRegistry.add(
            name,
            source=seqio.FunctionDataSource(dataset, ("train",), num_input_examples={"train": 6}),
            output_features={"inputs": feature, "targets": feature},
            preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        )
    seqio.MixtureRegistry.add("routing_all", list(NAMES), default_rate=1.0)
    return NAMES


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """A function that writes a run: its bindings, its tasks, and what is added to the initial values."""
    from poly_jax import configuration
    from poly_jax.analysis import figures
    from poly_jax.data.task_table import TaskTable
    from poly_jax.model.parameters import init_parameters
    from poly_jax.training.run_folder import write_run
    from poly_jax.training.saved_step import Origin
    from poly_jax.weights.parameter_names import is_adapter_parameter
    from poly_jax.weights.tree import flatten, unflatten

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "DPI", 20)

    def make(bindings=(), names=NAMES, added=lambda path, shape: 0.0, operative="train.seed = 5\n"):
        (tmp_path / "made.gin").write_text(CONFIG)
        loaded = configuration.load([str(tmp_path / "made.gin")], list(bindings))
        table = TaskTable(tuple(names))
        model = loaded.experiment().transformer(table)
        fresh = flatten(
            jax.device_get(jax.jit(lambda key: init_parameters(model, key)[0])(jax.random.key(5)))
        )
        trained = {
            path: np.asarray(leaf + added(path, leaf.shape), np.float32)
            for path, leaf in fresh.items()
            if is_adapter_parameter(path)
        }
        folder = tmp_path / "made"
        write_run(str(folder), unflatten(trained), table, Origin("random", "random"), loaded.config)
        (folder / "operative_config.gin").write_text(operative)
        return SimpleNamespace(folder=str(folder), trained=trained)

    return make
