"""Trains and adapts one method on the embedded benchmark, and scores it."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from jaxtyping import Int

from poly_jax import configuration
from poly_jax.configuration import Configuration, Loaded
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.study.arrays import Arrays, exact_match, seen_arrays, task_arrays
from poly_jax.study.methods import RECIPES, Adaptation, MultitaskMethod
from poly_jax.tasks.skillbench.compositions import Task, benchmark
from poly_jax.tasks.skillbench.examples import Form, target_length
from poly_jax.tasks.skillbench.tasks import register, registered_name
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.recorded_mesh import arguments_here
from poly_jax.training.restore import Restored, restore
from poly_jax.training.train import train
from poly_jax.transfer.adapt import adapt
from poly_jax.transfer.adaptation import Adaptation as OneAdaptation
from poly_jax.transfer.settings import configured
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.variants import Variant, find
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

DECODING = Decoding(max_length=target_length())


@dataclasses.dataclass(frozen=True)
class Trained:
    """A method after training on many tasks."""

    method: MultitaskMethod
    restored: Restored
    data_seed: int
    form: Form
    loaded: Loaded

    @property
    def n_trained(self) -> int:
        """Number of trained parameters of skills and routers together."""
        adapters, _ = split(self.restored.parameters, is_adapter_parameter)
        return sum(leaf.size for leaf in jax.tree.leaves(adapters))


def train_method(
    method: MultitaskMethod,
    folder: epath.Path,
    *,
    seed: int,
    form: Form = "named",
    bindings: Sequence[str] = (),
) -> Trained:
    """Train a method, or restore it if the folder holds its finished run.

    `seed` seeds the adapters, the data and the order of the data.
    """
    register(seed)
    loaded = configuration.load(
        [method.recipe, *([f"{RECIPES}/described.gin"] if form == "described" else [])],
        [
            f"Data.mixture = '{registered_name('train', form, seed)}'",
            "Data.register = @skillbench.register",
            f"skillbench.register.data_seed = {seed}",
            f"train.seed = {seed}",
            *method.bindings,
            *bindings,
        ],
    )
    arguments = loaded.arguments("train", output_dir=str(folder))
    train(**arguments)
    experiment = arguments["experiment"]
    mesh = arguments["partitioning"].mesh_for(experiment.model, experiment.adapters)
    return Trained(method, restore(experiment, str(folder), mesh), seed, form, loaded)


def seen_score(trained: Trained, split_name: str = "test") -> float:
    """Exact match on the training tasks' own examples, in percent."""
    restored = trained.restored
    arrays = seen_arrays(benchmark().train, restored.table, split_name, trained.data_seed, trained.form)
    return exact_match(decode(restored, arrays), arrays["decoder_target_tokens"])


def decode(restored: Restored, arrays: Arrays) -> Int[np.ndarray, "example length"]:
    """Target tokens that a model decodes for the inputs of a batch."""
    predicted = _decode(
        restored.model, DECODING, restored.parameters, arrays["encoder_input_tokens"], arrays["task_ids"]
    )
    return np.asarray(predicted)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(model, decoding, parameters, inputs, task_ids):
    return generate(model, parameters, inputs, task_ids, decoding).tokens


@dataclasses.dataclass(frozen=True)
class Adapted:
    """Scores of adapted tasks.

    Attributes:
      exact_match: exact match on each task's test examples, in percent.
      loss: loss of the last step, as the mean over tasks; None where nothing was trained.
      n_trained: number of trained parameters per task.
    """

    exact_match: dict[str, float]
    loss: float | None
    n_trained: int

    @property
    def mean(self) -> float:
        """Mean exact match over tasks."""
        return float(np.mean(list(self.exact_match.values())))


def adapt_tasks(
    trained: Trained, adaptation: Adaptation, tasks: Sequence[Task], rates: Sequence[float]
) -> list[Adapted]:
    """Adapt a method to tasks that it has not seen, at each learning rate, and test each task.

    All adaptations are computed in one program, which costs less than one after another.
    """
    form, seed = trained.form, trained.data_seed
    chosen = configured(adaptation.variant, trained.loaded)
    model = _sampling(trained.restored.model, adaptation.sampling)
    assert model.adapters is not None
    # A router that looks tasks up by name makes a different model for each task.
    alone = model.adapters.router.names_tasks and chosen.routes
    # Each task has its own seed, so that no two tasks draw the same router row.
    seeded = [(task, 1000 * (seed + 1) + i) for i, task in enumerate(tasks)]
    parts: list[list[Adapted]] = [[] for _ in rates]
    for group in [[pair] for pair in seeded] if alone else [seeded]:
        stacked = [
            OneAdaptation(
                model,
                trained.restored.parameters,
                chosen,
                task_arrays(task, "train", seed, form, adaptation.n_examples),
                own_seed,
                adaptation.steps,
                _optimizer(chosen, rate),
                task=registered_name(task.name, form, seed) if alone else None,
            )
            for rate in rates
            for task, own_seed in group
        ]
        _, backbone = split(trained.restored.parameters, is_adapter_parameter)
        stack = adapt_many(stacked, backbone, batch_size=16)
        test = [task_arrays(task, "test", seed, form) for task, _ in group] * len(rates)
        predicted = stack.predict(np.stack([arrays["encoder_input_tokens"] for arrays in test]), DECODING)
        scores = [
            exact_match(rows, arrays["decoder_target_tokens"])
            for rows, arrays in zip(predicted, test, strict=True)
        ]
        for i, part in enumerate(parts):
            own = slice(i * len(group), (i + 1) * len(group))
            names = [task.name for task, _ in group]
            losses = stack.losses[-1:, own].ravel()
            loss = float(np.mean(losses)) if len(losses) else None
            size = stacked[0].trained_size
            part.append(Adapted(dict(zip(names, scores[own], strict=True)), loss, size))
    return [_together(part) for part in parts]


def adapt_run(trained: Trained, variant: str, bindings: Sequence[str] = ()) -> Restored:
    """Adapt a run to its own training tasks, all at once, in a folder beside the run.

    Args:
      trained: the run.
      variant: name of the variant, such as one that makes a router which looks at inputs.
      bindings: gin bindings on top of the run's configuration, such as the number of steps.
    """
    run = trained.restored.step.parent.parent
    folder = run.parent / f"{run.name}-{variant}"
    loaded = Configuration((), tuple(bindings)).load(run=str(run))
    arguments = arguments_here(
        loaded,
        "adapt",
        run=str(run),
        task=registered_name("train", trained.form, trained.data_seed),
        output_dir=str(folder),
        variant=configured(find(variant), loaded),
        seed=trained.data_seed,
    )
    adapt(**arguments)
    adapted = Configuration().load(run=str(folder))
    experiment = arguments_here(adapted, "evaluate", run=str(folder))["experiment"]
    return restore(
        experiment, str(folder), arguments["partitioning"].mesh_for(experiment.model, experiment.adapters)
    )


def _sampling(model: Transformer, sampling: bool) -> Transformer:
    """The model, whose router draws no weights while training unless it is to sample."""
    if sampling:
        return model
    assert model.adapters is not None
    learned = model.adapters.router
    assert isinstance(learned, LearnedRouter)
    router = dataclasses.replace(learned, sampling=False)
    return Transformer(model.config, dataclasses.replace(model.adapters, router=router))


def _optimizer(variant: Variant, rate: float) -> Optimizer:
    """AdamW at this rate. A router trained together with skills has 0.1, as in the published recipes."""
    router = rate if variant.trainable == "router" else 0.1
    return Optimizer(learning_rate=rate, router_learning_rate=router, decay="cosine")


def _together(parts: Sequence[Adapted]) -> Adapted:
    scores = {name: score for part in parts for name, score in part.exact_match.items()}
    losses = [part.loss for part in parts if part.loss is not None]
    return Adapted(scores, float(np.mean(losses)) if losses else None, parts[0].n_trained)
