"""Small tasks, and a run of three steps: random weights, and routers that distinguish the tasks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

CONFIG = """
train.experiment = @Experiment()
train.steps = 3
train.optimizer = @Optimizer()
evaluate.experiment = @Experiment()
infer.experiment = @Experiment()

Experiment.model = @T5Config()
Experiment.data = @Data()
Experiment.adapters = @Adapters
Experiment.decoding = @Decoding()

T5Config.vocab_size = 259
T5Config.emb_dim = 16
T5Config.num_heads = 2
T5Config.head_dim = 8
T5Config.mlp_dim = 32
T5Config.num_encoder_layers = 1
T5Config.num_decoder_layers = 1

Adapters.skill = @LoRA()
Adapters.router = @LearnedRouter()
Adapters.n_skills = 3
Adapters.n_splits = 2
Adapters.sites = ('.*/value', '.*/wo')
LoRA.rank = 2
LearnedRouter.sampling = False

Data.mixture = 'evaluation_all'
Data.inputs_length = 12
Data.targets_length = 6
Data.batch_size = 8
Decoding.max_length = 6

Optimizer.learning_rate = 0.5
Optimizer.router_learning_rate = 5.0
Optimizer.warmup_fraction = 0.0
Optimizer.decay = 'constant'
"""

# Examples of the split `test`; `evaluation_no_test` has none.
SIZES = {"evaluation_a": 7, "evaluation_b": 5, "evaluation_no_metric": 3}


def overlap(targets, predictions):
    """Percentage of positions at which target and prediction agree, and mean length of the predictions."""
    same = [
        sum(x == y for x, y in zip(target, prediction, strict=False)) / max(len(target), len(prediction), 1)
        for target, prediction in zip(targets, predictions, strict=True)
    ]
    return {"overlap": 100 * float(np.mean(same)), "length": float(np.mean([len(p) for p in predictions]))}


def log_likelihood(targets, scores):
    return {"log_likelihood": float(np.mean(scores))}


def texts(name, count):
    """(input, target) pairs of a task, the same on every call."""
    draw = np.random.default_rng(len(name))
    words = ["".join(draw.choice(list("abcdef"), 4)) for _ in range(2 * count)]
    return [(f"{name[-1]}: {left}", right) for left, right in zip(words[::2], words[1::2], strict=True)]


def add_task(name, splits, metric_fns, postprocess_fn=None):
    from poly_jax.data import vocabularies
    from poly_jax.data.quiet import seqio, tf

    def dataset(split, shuffle_files, seed=None):
        pairs = texts(name, splits[split])
        columns = zip(*pairs, strict=True) if pairs else ([], [])
        slices = {
            key: tf.constant(column, tf.string)
            for key, column in zip(("inputs", "targets"), columns, strict=True)
        }
        return tf.data.Dataset.from_tensor_slices(slices)

    feature = seqio.Feature(vocabularies.byte(), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset, tuple(splits), num_input_examples=splits),
        output_features={"inputs": feature, "targets": feature},
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        postprocess_fn=postprocess_fn,
        metric_fns=metric_fns,
    )


def marked(text, **_):
    return f"<{text}>"


@pytest.fixture(scope="session")
def tasks():
    """Register the mixture `evaluation_all`, on which the run trains, and a task that no run has."""
    from poly_jax.data.quiet import seqio

    sizes = SIZES
    add_task("evaluation_a", {"train": 16, "test": sizes["evaluation_a"]}, [overlap])
    add_task("evaluation_b", {"train": 16, "test": sizes["evaluation_b"]}, [overlap, log_likelihood], marked)
    add_task("evaluation_no_metric", {"train": 16, "test": sizes["evaluation_no_metric"]}, [])
    add_task("evaluation_no_test", {"train": 16, "empty": 0}, [overlap])
    add_task("evaluation_stranger", {"test": 4}, [overlap])
    known = [*sizes, "evaluation_no_test"]
    seqio.MixtureRegistry.add("evaluation_all", known, default_rate=1.0)
    seqio.MixtureRegistry.add("evaluation_strange", ["evaluation_a", "evaluation_stranger"], default_rate=1.0)
    seqio.MixtureRegistry.add("evaluation_a_only", ["evaluation_a"], default_rate=1.0)
    return SimpleNamespace(
        sizes=sizes, texts=texts, overlap=overlap, log_likelihood=log_likelihood, config=CONFIG
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tasks):
    """A run made as users make it (gin, a backbone file, `train`): its folder and its restored model."""
    import jax

    from poly_jax import configuration
    from poly_jax.model.config import T5Config
    from poly_jax.model.parameters import init_parameters
    from poly_jax.model.transformer import Transformer
    from poly_jax.training.mesh import Partitioning
    from poly_jax.training.restore import restore
    from poly_jax.training.train import train
    from poly_jax.weights import single_file

    root = tmp_path_factory.mktemp("evaluation")
    (root / "run.gin").write_text(CONFIG)
    weights = root / "backbone.safetensors"
    loaded = configuration.load([str(root / "run.gin")], [f"Experiment.backbone={str(weights)!r}"])
    draw = jax.jit(lambda key: init_parameters(Transformer(loaded.make(T5Config)), key)[0])
    single_file.save(weights, draw(jax.random.key(1)), {})
    train(**loaded.arguments("train", output_dir=str(root / "run")))
    mesh = Partitioning().mesh()
    restored = restore(loaded.experiment(), str(root / "run"), mesh)
    return SimpleNamespace(folder=str(root / "run"), mesh=mesh, restored=restored, predictors={})


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """The run with the experiment and the gin texts of its own configuration."""
    from poly_jax import configuration

    monkeypatch.chdir(tmp_path)
    loaded = configuration.load([configuration.run_config(trained.folder)])
    trained.experiment, trained.texts = loaded.experiment(), loaded.texts
    return trained


@pytest.fixture(scope="session")
def evaluated(trained, tmp_path_factory):
    """An evaluation of all of the run's tasks: its metrics, and its predictions by task."""
    from poly_jax import configuration
    from poly_jax.evaluation.evaluate import evaluate

    folder = tmp_path_factory.mktemp("evaluated")
    loaded = configuration.load([configuration.run_config(trained.folder)])
    given = {"run": trained.folder, "output_dir": str(folder), "batch_size": 4}
    metrics = evaluate(**loaded.arguments("evaluate", **given))
    predictions = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / "predictions").iterdir()
    }
    return SimpleNamespace(folder=folder, metrics=metrics, predictions=predictions)
