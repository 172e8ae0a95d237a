"""A run without its data and its weights: the real step with the shapes of its arguments."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from poly_jax.counts import check_counts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.predict import decode_program
from poly_jax.experiment import Data, Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training import guards
from poly_jax.training.compiled_step import compiled_step
from poly_jax.training.finite_steps import NonFinite
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.training.mesh import (
    Partitioning,
    batch_sharding,
    check_batch_size,
    on_mesh,
    replicated,
    shardings,
)
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.packed_routers import packed_routers
from poly_jax.training.start import abstract_state
from poly_jax.training.update import Update
from poly_jax.weights.parameter_names import Trainable, selects
from poly_jax.weights.quantized import kept_dtype
from poly_jax.weights.tree import flatten, merge, split, unflatten

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class AbstractRun:
    """The settings that decide a run's step, with the meanings and defaults of `train`'s arguments."""

    experiment: Experiment
    steps: int
    optimizer: Optimizer = Optimizer()
    loss: Loss = TokenLoss()
    trainable: Trainable = "adapters"
    microbatches: int = 1
    partitioning: Partitioning = Partitioning()
    prior: IBPPrior | None = None
    router_anneal_steps: int = 0
    non_finite: NonFinite = "stop"

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "AbstractRun":
        """Make a run from the arguments of `train`, many of which do not matter here."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in arguments.items() if name in names})

    @property
    def data(self) -> Data:
        """The shape of the batches."""
        return self.experiment.data

    def check(self) -> None:
        """Raise a UserError where `train` would refuse these arguments, apart from the backbone's path."""
        if self.trainable == "adapters" and self.experiment.adapters is None:
            guards.check_trainable(self.experiment, self.trainable)
        check_counts("train", steps=self.steps)
        guards.check_microbatches(self.data.batch_size, self.microbatches)
        guards.check_packing(self.data, self.loss, self.experiment.adapters)
        guards.check_routers(self.experiment.adapters, self.prior, self.router_anneal_steps)
        if self.loss.needs_choices:
            raise UserError(
                f"the loss {type(self.loss).__name__} has as many targets as the data has answer choices,"
                " which a plan does not know; bind train.loss = @TokenLoss()"
            )


def table_of(count: int) -> TaskTable:
    """Make a table of tasks that exist only by their number."""
    return TaskTable(tuple(f"task_{number:06}" for number in range(count)))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Shape, dtype and sharding of what a program reads.

    Attributes:
      frozen: the parameters that are not trained.
      trained: the parameters that are trained.
      optimizer: the optimizer's state; empty in evaluation.
      batch: the batch.
    """

    frozen: Tree
    trained: Tree
    optimizer: Any
    batch: Tree


def trained_and_frozen(
    run: AbstractRun, model: Transformer, parameters: tuple[Tree, Tree], mesh: Mesh
) -> tuple[Tree, Tree]:
    """Describe the parameters that `fresh_start` would make; frozen ones have the activations' dtype.

    Args:
      run: the run.
      model: its model.
      parameters: result of `parameter_shapes` for the model, which takes seconds for large ones.
      mesh: the mesh.
    """
    shapes, axes = parameters
    described = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        shardings(shapes, axes, mesh),
    )
    trained, frozen = split(described, selects(run.trainable))
    return trained, unflatten(
        {
            name: leaf.update(dtype=kept_dtype(name, leaf.dtype, model.config.activation_dtype))
            for name, leaf in flatten(frozen).items()
        }
    )


def abstract_batch(data: Data, mesh: Mesh) -> Tree:
    """Describe the batch that `train_batches` would make of all hosts' rows."""
    packed = data.packing != "none"
    widths: dict[str, tuple[int, ...]] = {
        "encoder_input_tokens": (data.inputs_length,),
        **{
            f"decoder_{name}": (data.targets_length,)
            for name in ("input_tokens", "target_tokens", "loss_weights")
        },
        "task_ids": (data.max_segments,) if packed else (),
    }
    if packed:
        widths |= {
            "encoder_segment_ids": (data.inputs_length,),
            "decoder_segment_ids": (data.targets_length,),
        }
    place = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((data.batch_size, *width), jnp.int32, sharding=place)
        for name, width in widths.items()
    }


def train_program(run: AbstractRun, table: TaskTable, mesh: Mesh) -> tuple[Any, Arguments]:
    """Trace the run's training step.

    Args:
      run: the run.
      table: its tasks.
      mesh: the mesh, of devices or of their descriptions.

    Returns:
      The traced step, for `lower()` and `jaxpr`, and its arguments.

    Raises:
      UserError: the batch cannot be divided over the mesh, or the model's configuration is not possible.
    """
    check_batch_size(run.data.batch_size // run.microbatches, mesh)
    model = dataclasses.replace(run.experiment.transformer(table), train=True)
    trained, frozen = trained_and_frozen(run, model, parameter_shapes(model), mesh)
    update = training_update(run, model)
    state = abstract_state(trained, update, mesh)
    packing = packed_routers(update, state, frozen)
    state = packing.pack(state)
    arguments = Arguments(frozen, state.trained, state.optimizer, abstract_batch(run.data, mesh))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    with on_mesh(mesh):
        step = compiled_step(packing.update, run.non_finite, state, frozen)
        traced = step.trace(state, frozen, arguments.batch, _key(), number)
    return traced, arguments


def training_update(run: AbstractRun, model: Transformer) -> Update:
    """Make the step's function, as `train` does."""
    transformation = run.optimizer.transformation(run.steps, run.router_anneal_steps)
    return Update(model, run.loss, transformation, run.microbatches, run.prior)


def evaluation_program(
    run: AbstractRun, table: TaskTable, mesh: Mesh, batch_size: int
) -> tuple[Any, Arguments]:
    """Trace the program that predicts a batch in evaluation, with the run's `Decoding`.

    Args:
      run: the run.
      table: its tasks.
      mesh: the mesh.
      batch_size: number of rows over all devices, as `evaluate.batch_size`.

    Raises:
      UserError: the batch cannot be divided over the mesh, or the model's configuration is not possible.
    """
    check_batch_size(batch_size, mesh)
    model, decoding = run.experiment.transformer(table), run.experiment.decoding
    trained, frozen = trained_and_frozen(run, model, parameter_shapes(model), mesh)
    data = dataclasses.replace(run.data, batch_size=batch_size, packing="none")
    batch = {
        "encoder_input_tokens": abstract_batch(data, mesh)["encoder_input_tokens"],
        # An evaluation predicts one task after another, whose examples share one mix.
        "task_ids": jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
    }
    with on_mesh(mesh):
        program = decode_program(model, decoding, mesh)
        key = _key() if decoding.temperature else None
        traced = program.trace(merge(frozen, trained), *batch.values(), key)
    return traced, Arguments(frozen, trained, (), batch)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))
