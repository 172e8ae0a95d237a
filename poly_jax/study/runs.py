"""Trains and adapts one method on the embedded benchmark, and scores it."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from poly_jax import configuration
from poly_jax.configuration import Loaded
from poly_jax.model.generate import Decoding, generate
from poly_jax.study.arrays import exact_match, seen_arrays, task_arrays
from poly_jax.study.methods import MultitaskMethod, variant_of
from poly_jax.tasks.skillbench.compositions import Task, benchmark
from poly_jax.tasks.skillbench.examples import Form, target_length
from poly_jax.tasks.skillbench.tasks import register, registered_name
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import Restored, restore
from poly_jax.training.train import train
from poly_jax.transfer.settings import configured
from poly_jax.transfer.stacked import adapt_many
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
        [method.recipe],
        [
            f"Data.mixture = '{registered_name('train', form, seed)}'",
            "Data.register = @skillbench.register",
            f"skillbench.register.data_seed = {seed}",
            f"train.seed = {seed}",
            *bindings,
        ],
    )
    arguments = loaded.arguments("train", output_dir=str(folder))
    train(**arguments)
    mesh = arguments["partitioning"].mesh()
    return Trained(method, restore(arguments["experiment"], str(folder), mesh), seed, form, loaded)


def seen_score(trained: Trained, split_name: str = "test") -> float:
    """Exact match on the training tasks' own examples, in percent."""
    restored = trained.restored
    arrays = seen_arrays(benchmark().train, restored.table, split_name, trained.data_seed, trained.form)
    predicted = _decode(
        restored.model, DECODING, restored.parameters, arrays["encoder_input_tokens"], arrays["task_ids"]
    )
    return exact_match(np.asarray(predicted), arrays["decoder_target_tokens"])


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
    trained: Trained,
    variant: str,
    tasks: Sequence[Task],
    *,
    optimizer: Optimizer,
    steps: int,
    batch_size: int = 16,
) -> Adapted:
    """Adapt a method to tasks that it has not seen, all at once, and test each."""
    form, seed = trained.form, trained.data_seed
    chosen = configured(variant_of(variant), trained.loaded)
    adapters = trained.restored.model.adapters
    assert adapters is not None
    # A router that looks tasks up by name makes a different model for each task.
    alone = adapters.router.names_tasks and chosen.routes
    # Each task has its own seed, so that no two tasks draw the same router row.
    seeded = [(task, 1000 * (seed + 1) + i) for i, task in enumerate(tasks)]
    scores, losses, sizes = {}, [], []
    for group in [[pair] for pair in seeded] if alone else [seeded]:
        stack = adapt_many(
            trained.restored.model,
            trained.restored.parameters,
            chosen,
            [task_arrays(task, "train", seed, form) for task, _ in group],
            [own_seed for _, own_seed in group],
            steps=steps,
            batch_size=batch_size,
            optimizer=optimizer,
            tasks=[registered_name(task.name, form, seed) for task, _ in group] if alone else None,
        )
        test = [task_arrays(task, "test", seed, form) for task, _ in group]
        predicted = stack.predict(np.stack([arrays["encoder_input_tokens"] for arrays in test]), DECODING)
        for (task, _), rows, arrays in zip(group, predicted, test, strict=True):
            scores[task.name] = exact_match(rows, arrays["decoder_target_tokens"])
        losses += list(stack.losses[-1:].ravel())
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(stack.trained)) // len(group))
    return Adapted(scores, float(np.mean(losses)) if losses else None, sizes[0])
