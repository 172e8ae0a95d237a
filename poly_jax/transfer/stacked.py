"""Many adaptations in one program: each has its own adapters and examples, and all share the backbone."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from poly_jax.fixed import kept_for
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.joint_routing import places_of
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.training.mesh import replicated
from poly_jax.training.optimizer import LearningRates, Optimizer
from poly_jax.training.update import TrainState, Update, start
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.few_shot import draw_batch
from poly_jax.transfer.one_program import check_common
from poly_jax.transfer.ranks import scale, scaled
from poly_jax.transfer.stacked_start import begin, common_model, keys_of, trained_parts
from poly_jax.transfer.trained_parts import only
from poly_jax.weights.tree import flatten, merge

Tree = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


@flax.struct.dataclass
class _Own:
    """What each adaptation has for itself beside its state, on a leading axis of adaptations.

    Attributes:
      rates: its learning rates.
      steps: its number of steps; None where all take the same number.
      scale: the scale of its updates; None where all have the common model's.
      trained: whether it trains each parameter; None where all train the same ones.
    """

    rates: LearningRates
    steps: Int[Array, "adaptations"] | None
    scale: Float[Array, "adaptations"] | None
    trained: dict[str, Bool[Array, "adaptations"]] | None


@dataclasses.dataclass(frozen=True)
class StackedAdaptations:
    """The adapters of several new tasks, stacked.

    Attributes:
      model: the model of one task, in evaluation mode. Its LoRA skills have the largest rank.
      trained: the trees of what any adaptation trains, stacked on a leading axis.
      frozen: the tree that all adaptations share, including adapters that are not trained (MHR-z's skills).
      losses: training loss of every adaptation at every step, [steps, adaptations]; not a number after the
        last step of an adaptation.
      scale: the factor that each adaptation has on top of the model's for its updates; None for 1.
    """

    model: Transformer
    trained: Tree
    frozen: Tree
    losses: Float[np.ndarray, "steps adaptations"]
    scale: Float[Array, "adaptations"] | None = None

    def one(self, number: int) -> Tree:
        """The parameters of one adaptation for the model, beside the frozen ones; each device holds them."""
        cut = jax.jit(_cut, out_shardings=_everywhere(_mesh(self.trained)))
        return cut(self.trained, self.scale, number)

    def predict(
        self, inputs: Int[np.ndarray, "adaptations examples length"], decoding: Decoding
    ) -> Int[np.ndarray, "adaptations examples targets"]:
        """Target tokens that each adapted model decodes for its own inputs."""
        return np.asarray(_predict(self.model, decoding, self.trained, self.scale, self.frozen, inputs))


def adapt_many(
    adaptations: Sequence[Adaptation],
    backbone: Tree,
    *,
    batch_size: int,
    loss: Loss = TokenLoss(),
    advance: Callable[[], None] | None = None,
) -> StackedAdaptations:
    """Make several adaptations at once, each as `adapt` would.

    They may differ in their sources, as long as these have one backbone, in the rank of LoRA skills, in
    variants whose new tasks have equal models, in learning rates, steps, and the numbers of examples and of
    answer choices. Where one adaptation trains a parameter that another does not, both have their own.

    Args:
      adaptations: the adaptations.
      backbone: the parameters of the T5, in float32 where the variant trains them.
      batch_size: examples of each adaptation per step.
      loss: TokenLoss, or ChoiceLoss where the examples have answer choices.
      advance: called after every step.

    Raises:
      UserError: a variant does not fit its source, or the adaptations do not fit one program
        (`poly_jax.transfer.one_program`).
    """
    shared = check_common(adaptations)
    model = common_model(adaptations)
    alike = _alike([each.examples for each in adaptations], loss)
    adaptations = [
        dataclasses.replace(each, examples=arrays) for each, arrays in zip(adaptations, alike, strict=True)
    ]
    trained, frozen = begin(adaptations, model, backbone, loss=loss, batch_size=batch_size)
    counts = np.array([each.steps if each.variant.trains else 0 for each in adaptations])
    own = _Own(
        _rates(adaptations),
        jnp.asarray(counts) if len(set(counts)) > 1 else None,
        _scales(adaptations, model),
        trained_parts(adaptations, list(flatten(trained))),
    )
    program = kept_for(_program, model.config, model.adapters, loss)
    place = _placement(_mesh(backbone), len(adaptations))
    update, begun, step_function = program(model, loss, shared.optimizer, place)
    states, keys = begun(trained), keys_of(adaptations)
    places = places_of(update.joint_routers(merge(frozen, trained)))
    losses = [jnp.zeros((0, len(adaptations)))]
    for step in range(counts.max()):
        batch = _batches(adaptations, batch_size, step)
        states, metrics = step_function(states, frozen, batch, keys, own, places)
        losses.append(metrics["loss"][None])
        if advance is not None:
            advance()
    table = np.concatenate([np.asarray(row) for row in losses])
    table = np.where(np.arange(len(table))[:, None] < counts, table, np.nan)
    return StackedAdaptations(model, states.trained, frozen, table, own.scale)


@functools.lru_cache(maxsize=1)
def _program(
    model: Transformer, loss: Loss, optimizer: Optimizer, place: NamedSharding | None
) -> tuple[Update, Callable[[Tree], TrainState], Callable[..., Any]]:
    """The update of one adaptation, and the programs that make all first states and take a step of all.

    The next stack of a sweep finds its programs here.
    """
    common = Update(dataclasses.replace(model, train=True), loss, optimizer.transformation(0))

    def update(state, frozen, batch, key, own, places):
        rule = optimizer.transformation(0, rates=own.rates)
        if own.trained is not None:
            rule = only(rule, own.trained)

        def joined(frozen, trained):
            return merge(frozen, scaled(trained, own.scale))

        taken = dataclasses.replace(common, optimizer=rule, joined=joined)
        after, metrics = taken(state, frozen, batch, key, places)
        if own.steps is not None:
            after = jax.tree.map(functools.partial(jnp.where, state.step < own.steps), after, state)
        return after, metrics

    begun = jax.vmap(functools.partial(start, optimizer=common.optimizer))
    step = jax.jit(
        jax.vmap(update, in_axes=(0, None, 0, 0, 0, None)),
        donate_argnums=0,
        # Every host reads all losses.
        out_shardings=(place, None if place is None else NamedSharding(place.mesh, PartitionSpec())),
    )
    return common, jax.jit(begun, out_shardings=place), step


def _rates(adaptations: Sequence[Adaptation]) -> LearningRates:
    """The learning rates of each adaptation, [adaptations, steps]."""
    own = [each.optimizer.learning_rates(each.steps) for each in adaptations]
    return LearningRates(*(_padded(column) for column in zip(*own, strict=True)))


def _padded(rows: Sequence[Float[Array, " steps"]]) -> Float[Array, "adaptations steps"]:
    longest = max(len(row) for row in rows)
    return jnp.stack([jnp.pad(row, (0, longest - len(row))) for row in rows])


def _scales(adaptations: Sequence[Adaptation], model: Transformer) -> Float[Array, "adaptations"] | None:
    skills = [each.model.adapters.skill for each in adaptations if each.model.adapters is not None]
    if model.adapters is None or all(skill == model.adapters.skill for skill in skills):
        return None
    return jnp.array([scale(skill) for skill in skills]) / scale(model.adapters.skill)


def _alike(examples: Sequence[Arrays], loss: Loss) -> list[Arrays]:
    """The examples with the same arrays for every task, padded to the same lengths and number of choices."""
    left_out = () if loss.needs_choices else ("choices", "labels")
    kept = [{name: leaf for name, leaf in arrays.items() if name not in left_out} for arrays in examples]
    for arrays in kept:
        loss.divisors(arrays)  # Raises an error if the loss needs choices and a task has none.

    def padded(name: str, leaf: np.ndarray) -> np.ndarray:
        # Examples with answer choices have numbers, which a batch has not and others lack.
        most = map(max, *(arrays[name].shape[1:] for arrays in kept if name in arrays), leaf.shape[1:])
        return np.pad(leaf, [(0, 0), *((0, m - size) for m, size in zip(most, leaf.shape[1:], strict=True))])

    return [{name: padded(name, leaf) for name, leaf in arrays.items()} for arrays in kept]


def _cut(stacked: Tree, scales: Float[Array, "adaptations"] | None, number: Int[Array, ""]) -> Tree:
    return scaled(*jax.tree.map(lambda leaf: leaf[number], (stacked, scales)))


def _mesh(parameters: Tree) -> Mesh | None:
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


def _batches(adaptations: Sequence[Adaptation], batch_size: int, step: int) -> dict[str, np.ndarray]:
    batches = [draw_batch(each.examples, batch_size, each.seed, step) for each in adaptations]
    return jax.tree.map(lambda *rows: np.stack(rows), *batches)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(model, decoding, trained, scales, frozen, inputs):
    def one(trained, scale, inputs):
        task = jnp.zeros((), jnp.int32)  # All inputs have it, and share one mix.
        return generate(model, merge(frozen, scaled(trained, scale)), inputs, task, decoding).tokens

    return jax.vmap(one)(trained, scales, inputs)
