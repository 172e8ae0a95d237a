"""Many adaptations in one program: each has its own adapters and examples, and all share the backbone."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.errors import UserError
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.joint_routing import places_of
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.training.mesh import replicated
from poly_jax.training.optimizer import LearningRates, Optimizer
from poly_jax.training.update import Update, start
from poly_jax.transfer.choose_combinations import choose_combinations
from poly_jax.transfer.few_shot import draw_batch
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.variants import Variant
from poly_jax.weights.parameter_names import is_adapter_parameter, is_inventory, selects
from poly_jax.weights.tree import merge, split

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StackedAdaptations:
    """The adapters of several new tasks, stacked.

    Attributes:
      model: the model of one task, in evaluation mode.
      trained: the trained trees, stacked on a leading axis.
      frozen: the tree that all adaptations share, including adapters that are not trained (MHR-z's skills).
      losses: training loss of every adaptation at every step, [steps, adaptations]; not a number after the
        last step of an adaptation.
    """

    model: Transformer
    trained: dict[str, Any]
    frozen: dict[str, Any]
    losses: Float[np.ndarray, "steps adaptations"]

    def one(self, number: int) -> dict[str, Any]:
        """The trained tree of one adaptation, which every device then holds."""
        return jax.jit(_cut, out_shardings=_everywhere(_mesh(self.trained)))(self.trained, number)

    def predict(
        self, inputs: Int[np.ndarray, "adaptations examples length"], decoding: Decoding
    ) -> Int[np.ndarray, "adaptations examples targets"]:
        """Target tokens that each adapted model decodes for its own inputs."""
        return np.asarray(_predict(self.model, decoding, self.trained, self.frozen, inputs))


def adapt_many(
    source: Transformer,
    parameters: dict[str, Any],
    variant: Variant,
    examples: Sequence[Arrays],
    seeds: Sequence[int],
    *,
    steps: int | Sequence[int],
    batch_size: int,
    optimizer: Optimizer | Sequence[Optimizer],
    loss: Loss = TokenLoss(),
    rows: dict[str, Any] | None = None,
    tasks: Sequence[str] | None = None,
    advance: Callable[[], None] | None = None,
) -> StackedAdaptations:
    """Adapt one source model to several sets of examples at once, each as `adapt` would with its seed.

    Args:
      source: the model that learned the skills.
      parameters: all of its parameters; the backbone in float32 where the variant trains it.
      variant: the way to adapt.
      examples: the examples of each adaptation, as the model's batch. Adaptations may have different numbers
        of examples and of answer choices.
      seeds: the seed of each adaptation, for its fresh router row, batches, dropout and sampling.
      steps: optimizer steps, or the number for each adaptation; none are taken where the variant does not
        train.
      batch_size: examples of each adaptation per step.
      optimizer: the optimizer of the trained adapters, or one for each adaptation; these may differ in their
        learning rates, warm-up and decay.
      loss: TokenLoss, or ChoiceLoss where the examples have answer choices.
      rows: the routers' parameters that every new task starts from; None for fresh parameters.
      tasks: name of each new task, for routers that look tasks up by name.
      advance: called after every step.

    Raises:
      UserError: the variant does not fit the source, a router has different weights for the tasks, or
        optimizers differ in more than their learning rates, warm-up and decay.
    """
    if len(examples) != len(seeds):
        raise UserError(
            f"{len(examples)} adaptations with {len(seeds)} seeds cannot be stacked; give each its own seed"
        )
    adapters = new_adapters(variant, source.adapters)
    if adapters is not None and tasks is not None:
        kinds = {adapters.for_tasks((task,)) for task in tasks}
        if len(kinds) > 1:
            raise UserError(
                f"{type(adapters.router).__name__} has a mix of its own for each of {len(set(tasks))} tasks;"
                " adapt to them one at a time (sweep.stack = 1)"
            )
        (adapters,) = kinds
    model = Transformer(source.config, adapters)
    examples = _alike(examples, loss)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    trained, frozen = _begin(
        source, parameters, variant, model, examples, seeds, keys, loss, batch_size, rows
    )
    counts = _for_each(steps, len(seeds), "numbers of steps")
    most = max(counts, default=0) if variant.trains else 0
    common, rates = _rates(_for_each(optimizer, len(seeds), "optimizers"), counts)
    begin = jax.vmap(functools.partial(start, optimizer=common.transformation(most)))
    mesh = _mesh(parameters)
    place = _placement(mesh, len(seeds))
    states = jax.jit(begin, out_shardings=place)(trained)
    training = dataclasses.replace(model, train=True)
    routers = Update(training, loss, common.transformation(most)).joint_routers(merge(frozen, trained))
    places = places_of(routers)

    def update(state, frozen, batch, key, rates, count, places):
        taken = Update(training, loss, common.transformation(most, rates=rates))
        after, metrics = taken(state, frozen, batch, key, places)
        if len(set(counts)) > 1:
            after = jax.tree.map(functools.partial(jnp.where, state.step < count), after, state)
        return after, metrics

    step_function = jax.jit(
        jax.vmap(update, in_axes=(0, None, 0, 0, 0, 0, None)),
        donate_argnums=0,
        # Every host reads all losses.
        out_shardings=(place, _everywhere(mesh)),
    )
    losses = [jnp.zeros((0, len(seeds)))]
    ends = jnp.asarray(counts)
    for step in range(most):
        batch = _batches(examples, seeds, batch_size, step)
        states, metrics = step_function(states, frozen, batch, keys, rates, ends, places)
        losses.append(metrics["loss"][None])
        if advance is not None:
            advance()
    numbers = np.arange(most)[:, None]
    table = np.concatenate([np.asarray(row) for row in losses])
    return StackedAdaptations(
        model, states.trained, frozen, np.where(numbers < np.asarray(counts), table, np.nan)
    )


def _for_each(values: T | Sequence[T], count: int, kind: str) -> list[T]:
    """One value for each adaptation."""
    if not isinstance(values, Sequence):
        return [values] * count
    if len(values) != count:
        raise UserError(
            f"{count} adaptations with {len(values)} {kind} cannot be stacked; give each its own, or all one"
        )
    return list(values)


def one_program(optimizer: Optimizer) -> Optimizer:
    """The settings that optimizers must have in common where adaptations with them can be stacked."""
    return dataclasses.replace(
        optimizer, learning_rate=0.0, router_learning_rate=0.0, warmup_fraction=0.0, decay="constant"
    )


def _rates(optimizers: Sequence[Optimizer], counts: Sequence[int]) -> tuple[Optimizer, LearningRates]:
    """The optimizer of all adaptations, and the learning rates of each, [adaptations, steps]."""
    if len({one_program(each) for each in optimizers}) > 1:
        raise UserError(
            "optimizers that differ in more than learning rates, warm-up and decay cannot be stacked; adapt "
            "with one at a time"
        )
    own = [optimizer.learning_rates(count) for optimizer, count in zip(optimizers, counts, strict=True)]
    return optimizers[0], LearningRates(*(_padded(column) for column in zip(*own, strict=True)))


def _padded(rows: Sequence[Float[Array, " steps"]]) -> Float[Array, "adaptations steps"]:
    longest = max(len(row) for row in rows)
    return jnp.stack([jnp.pad(row, (0, longest - len(row))) for row in rows])


def _begin(
    source: Transformer,
    parameters: dict[str, Any],
    variant: Variant,
    model: Transformer,
    examples: Sequence[Arrays],
    seeds: Sequence[int],
    keys: PRNGKeyArray,
    loss: Loss,
    batch_size: int,
    rows: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stacked trained trees before the first step, and the frozen tree that they share."""
    skills, backbone = split(parameters, is_adapter_parameter)
    if model.adapters is None:
        copies = jax.jit(
            lambda tree: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(seeds), *leaf.shape)), tree)
        )
        return copies(backbone), {}
    assert source.adapters is not None
    skill = source.adapters.skill
    combinations = choose_combinations(
        variant, source, parameters, examples, seeds, loss=loss, batch_size=batch_size
    )

    def initial(key, combination, skills, rows):
        fresh, _ = split(init_parameters(model, key)[0], is_adapter_parameter)
        start = initial_parameters(variant, skills, fresh, skill, combination, rows, key)
        return split(start, selects(variant.trainable))[0]

    trained = jax.jit(jax.vmap(initial, in_axes=(0, 0, None, None)))(keys, combinations, skills, rows)
    if variant.skills != "kept":
        return trained, backbone
    not_trained = lambda path: is_inventory(path) and not selects(variant.trainable)(path)  # noqa: E731
    return trained, merge(backbone, split(skills, not_trained)[0])


def _alike(examples: Sequence[Arrays], loss: Loss) -> list[Arrays]:
    """The examples with the same arrays for every task, and padded to the same number of answer choices."""
    if not loss.needs_choices:
        return [
            {name: leaf for name, leaf in arrays.items() if name not in ("choices", "labels")}
            for arrays in examples
        ]
    for arrays in examples:
        loss.divisors(arrays)  # Raises an error if the loss needs choices and a task has none.
    most = max(arrays["choices"].shape[1] for arrays in examples)
    return [
        {**arrays, "choices": np.pad(leaf, ((0, 0), (0, most - leaf.shape[1]), (0, 0)))}
        for arrays in examples
        for leaf in [arrays["choices"]]
    ]


def _cut(stacked: dict[str, Any], number: Int[Array, ""]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _mesh(parameters: dict[str, Any]) -> Mesh | None:
    """The mesh that the parameters are on, if they are on one."""
    sharding = getattr(jax.tree.leaves(parameters)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    assert isinstance(sharding.mesh, Mesh)
    return sharding.mesh


def _everywhere(mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else replicated(mesh)


def _placement(mesh: Mesh | None, count: int) -> NamedSharding | None:
    """The sharding of the stacked trees: over all devices if these divide the adaptations evenly."""
    # Counters are also placed as a step returns them, because otherwise the second call would compile again.
    if mesh is None:
        return None
    axes = mesh.axis_names if count % mesh.size == 0 else ()
    return NamedSharding(mesh, PartitionSpec(axes or None))


def _batches(
    examples: Sequence[Arrays], seeds: Sequence[int], batch_size: int, step: int
) -> dict[str, np.ndarray]:
    batches = [
        draw_batch(arrays, batch_size, seed, step) for arrays, seed in zip(examples, seeds, strict=True)
    ]
    return jax.tree.map(lambda *rows: np.stack(rows), *batches)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(model, decoding, trained, frozen, inputs):
    def one(trained, inputs):
        ids = jnp.zeros((inputs.shape[0],), jnp.int32)
        return generate(model, merge(frozen, trained), inputs, ids, decoding).tokens

    return jax.vmap(one)(trained, inputs)
