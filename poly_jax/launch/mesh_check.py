"""Whether a run's mesh and its batches can be laid over the chips that are to be rented."""

import math
from typing import Any

from poly_jax.counted import counted
from poly_jax.counts import check_counts
from poly_jax.errors import UserError
from poly_jax.weights.divided_dimensions import check_divided
from poly_jax.weights.t5_dimensions import T5Dimensions


def check_mesh(partitioning: Any, model: T5Dimensions, devices: int, slice_: str) -> None:
    """Raise a UserError if a run would refuse its mesh on slices of this size; only `data` crosses them.

    Args:
      partitioning: the run's `Partitioning`, which says how many devices share parameters and examples.
      model: the run's T5.
      devices: number of JAX devices of one slice.
      slice_: name of the slice, for the message.
    """
    sizes = (partitioning.fsdp, partitioning.model)
    if min(sizes) < 1 or devices % math.prod(sizes):
        raise UserError(
            f"Partitioning.fsdp {partitioning.fsdp} x Partitioning.model {partitioning.model} does not divide"
            f" the {counted(devices, 'device')} of {slice_}; choose two numbers whose product does"
        )
    check_divided(model, *sizes, devices)


def check_rows(
    name: str, batch_size: int, partitioning: Any, devices: int, slices: str, microbatches: int = 1
) -> None:
    """Raise a UserError if a batch cannot be split into its microbatches and divided over these devices.

    Args:
      name: the setting that is the batch size, for the message.
      batch_size: number of rows over all devices.
      partitioning: as in `check_mesh`, which has been called before.
      devices: number of JAX devices of all slices.
      slices: description of the slices, for the message.
      microbatches: number of parts that a batch is split into.
    """
    check_counts(None, **{name: batch_size, "train.microbatches": microbatches})
    rows = devices // partitioning.model
    if batch_size % (rows * microbatches):
        parts = "" if microbatches == 1 else f" in {microbatches} microbatches"
        raise UserError(
            f"{name} {batch_size}{parts} cannot be divided over the {counted(rows, 'device')} of {slices}"
            f" that take rows; choose a multiple of {rows * microbatches}"
        )
