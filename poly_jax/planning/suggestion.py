"""Suggests a mesh, remat, microbatches and int8 kernels, by estimates instead of compilations."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, get_args

from poly_jax.data.task_table import TaskTable
from poly_jax.model.config import Remat, T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.planning.abstract_run import AbstractRun, trained_and_frozen, training_update
from poly_jax.planning.memory import bytes_on_device
from poly_jax.planning.plan import Accelerators, Plan
from poly_jax.training.mesh import Partitioning
from poly_jax.training.start import abstract_state
from poly_jax.weights.divided_dimensions import divides
from poly_jax.weights.quantized import Quantization

_MOST_MICROBATCHES = 16
# An estimate may be too low by this much.
_MARGIN = 0.9
_LOGIT_BYTES = 10
"""Bytes of a logit that are held at once: in the activations' dtype, and twice in float32 for the loss."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way to lay a run over devices.

    Attributes:
      fsdp: `Partitioning.fsdp`.
      model: `Partitioning.model`.
      remat: `T5Config.remat`.
      microbatches: `train.microbatches`.
      quantization: `T5Config.quantization`.
    """

    fsdp: int
    model: int
    remat: Remat
    microbatches: int
    quantization: Quantization = "none"

    @classmethod
    def of(cls, run: AbstractRun) -> "Layout":
        """The layout that a run has."""
        model = run.experiment.model
        return cls(
            run.partitioning.fsdp, run.partitioning.model, model.remat, run.microbatches, model.quantization
        )

    def applied(self, run: AbstractRun) -> AbstractRun:
        """The run with this layout."""
        return dataclasses.replace(
            _with(run, remat=self.remat, quantization=self.quantization),
            partitioning=Partitioning(self.fsdp, self.model),
            microbatches=self.microbatches,
        )

    @property
    def bindings(self) -> str:
        """The layout as flags."""
        flags = (
            f"--gin.Partitioning.fsdp={self.fsdp} --gin.Partitioning.model={self.model}"
            f" --gin.T5Config.remat=\"'{self.remat}'\" --gin.train.microbatches={self.microbatches}"
        )
        if self.quantization == "none":
            return flags
        return f"{flags} --gin.T5Config.quantization=\"'{self.quantization}'\""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated memory of a layout.

    Attributes:
      layout: the layout.
      bytes_per_chip: bytes of memory.
      seconds: seconds of a step, for comparisons between layouts only.
    """

    layout: Layout
    bytes_per_chip: float
    seconds: float


def suggest(run: AbstractRun, table: TaskTable, plan: Plan, share_of_peak: float) -> Estimate | None:
    """Return the layout with the shortest estimated step of those that should fit.

    Frozen kernels stay as they are where this is enough, and else become int8. Activations are estimated in
    proportion to the plan's own, which the compiler measured.

    Args:
      run: the run.
      table: its tasks.
      plan: the run's plan as it is.
      share_of_peak: share of a chip's peak that matrix products reach.

    Returns:
      The estimate of the best layout; None if none should fit.
    """
    accelerators = plan.accelerators
    rough = _activations(run, Layout.of(run), accelerators)
    scale = plan.memory.activations / rough if rough else 1.0
    limit = _MARGIN * (plan.available or accelerators.peaks.hbm_bytes)
    candidates = [run]
    if run.trainable == "adapters" and run.experiment.model.quantization == "none":
        candidates.append(_with(run, quantization="int8"))
    for candidate in candidates:
        fitting = [
            estimate
            for estimate in _estimates(candidate, table, plan, share_of_peak, scale)
            if estimate.bytes_per_chip <= limit
        ]
        if fitting:
            return min(fitting, key=lambda estimate: estimate.seconds)
    return None


def _with(run: AbstractRun, **settings: Any) -> AbstractRun:
    """The run with other settings of its T5."""
    model = dataclasses.replace(run.experiment.model, **settings)
    return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, model=model))


def _estimates(
    run: AbstractRun, table: TaskTable, plan: Plan, share_of_peak: float, scale: float
) -> Iterator[Estimate]:
    accelerators = plan.accelerators
    described = accelerators.describe()
    model = run.experiment.transformer(table)
    parameters = parameter_shapes(model)
    for fsdp, parts in _meshes(run, accelerators):
        mesh = Partitioning(fsdp, parts).mesh_for(
            run.experiment.model, run.experiment.adapters, described.devices
        )
        trained, frozen = trained_and_frozen(run, model, parameters, mesh)
        state = abstract_state(trained, training_update(run, model), mesh)
        weights = bytes_on_device(frozen)
        held = weights + bytes_on_device(state.trained) + bytes_on_device(state.optimizer)
        rows = accelerators.devices // parts
        for remat, microbatches in itertools.product(get_args(Remat), _powers(_MOST_MICROBATCHES)):
            # The links to the hosts' memory are not part of the estimates.
            if remat == "offload":
                continue
            if run.data.batch_size % (rows * microbatches):
                continue
            layout = Layout(fsdp, parts, remat, microbatches, run.experiment.model.quantization)
            program = plan.memory.program or 0
            used = held * described.per_chip + program + scale * _activations(run, layout, accelerators)
            yield Estimate(layout, used, _seconds(run, layout, plan, share_of_peak, weights))


def _meshes(run: AbstractRun, accelerators: Accelerators) -> Iterator[tuple[int, int]]:
    per_slice = accelerators.slice.devices
    for parts in _powers(min(per_slice, run.experiment.model.num_heads)):
        for fsdp in _powers(per_slice // parts):
            if per_slice % (fsdp * parts) == 0 and divides(run.experiment.model, fsdp, parts):
                yield fsdp, parts


def _powers(most: int) -> Iterator[int]:
    """The powers of 2 up to a number."""
    return itertools.takewhile(lambda power: power <= most, (2**exponent for exponent in itertools.count()))


def _activations(run: AbstractRun, layout: Layout, accelerators: Accelerators) -> float:
    """Rough bytes of activations that a chip holds between the forward and the backward pass."""
    config, data = run.experiment.model, run.data
    devices_with_rows = accelerators.devices / layout.model
    rows = data.batch_size / devices_with_rows / layout.microbatches
    inputs, targets = data.inputs_length, data.targets_length
    kept = inputs * config.num_encoder_layers * _kept(config, layout.remat, layout.model, inputs, 0)
    kept += targets * config.num_decoder_layers * _kept(config, layout.remat, layout.model, targets, inputs)
    if layout.remat != "none":
        # The layer whose backward pass runs is computed whole.
        kept += inputs * _kept(config, "none", layout.model, inputs, 0)
    kept += targets * config.vocab_size * _LOGIT_BYTES / layout.model
    return rows * kept * accelerators.slice.generation.devices


def _kept(config: T5Config, remat: Remat, parts: int, length: int, crossed: int) -> float:
    """Bytes that a layer keeps for each token of a sequence.

    Args:
      config: the T5.
      remat: policy of rematerialisation.
      parts: number of devices that share the heads and the MLP.
      length: number of tokens that each token attends to in its own sequence.
      crossed: number of tokens that it attends to in the other sequence; 0 in the encoder.
    """
    size = config.activation_dtype.itemsize
    if remat in ("offload", "full"):
        return size * config.emb_dim
    attentions = 2 if crossed else 1
    heads = config.num_heads * config.head_dim / parts
    wide = config.mlp_dim * len(config.mlp_activations) / parts
    kept = attentions * (3 * heads + config.emb_dim) + wide + config.emb_dim
    if remat == "none":
        scores = config.num_heads * (length + crossed) / parts
        kept += attentions * (heads + 2 * config.emb_dim) + wide + 2 * config.emb_dim + 2 * scores
    return size * kept


def _seconds(run: AbstractRun, layout: Layout, plan: Plan, share_of_peak: float, weights: int) -> float:
    """A rough time of a step: products at a share of the peak, then collectives at the links' peak."""
    # A frozen T5 has a forward pass and a backward pass of equal work; "full" adds a forward pass.
    work = {"none": 1.0, "minimal": 1.05, "offload": 1.05, "full": 1.5}
    before = work[run.experiment.model.remat]
    products = plan.seconds_at_peak / share_of_peak * work[layout.remat] / before
    config, data = run.experiment.model, run.data
    passes = (3 if layout.remat == "full" else 2) * layout.microbatches
    sent = weights * layout.fsdp * passes if layout.fsdp > 1 else 0.0
    if layout.model > 1:
        tokens = data.inputs_length * config.num_encoder_layers * 2
        tokens += data.targets_length * config.num_decoder_layers * 3
        rows = data.batch_size * layout.model / plan.accelerators.devices
        sent += 2 * 2 * rows * tokens * config.emb_dim * config.activation_dtype.itemsize
    return products + sent / (plan.accelerators.peaks.ici / 2)
