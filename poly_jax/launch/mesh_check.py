"""Whether a run's mesh and batch can be laid over the chips that are to be rented."""

from typing import Any

from poly_jax.errors import UserError


def check_mesh(partitioning: Any, batch_size: int, microbatches: int, devices: int, slices: str) -> None:
    """Raise a UserError if training would refuse its mesh or its batch on these devices.

    Args:
      partitioning: the run's `Partitioning`, which says how many devices share parameters and examples.
      batch_size: number of rows in a step.
      microbatches: number of parts that a batch is split into.
      devices: number of JAX devices of all slices.
      slices: what they are, for the message.
    """
    product = partitioning.fsdp * partitioning.model
    if product < 1 or devices % product:
        raise UserError(
            f"Partitioning.fsdp {partitioning.fsdp} x Partitioning.model {partitioning.model} does not divide"
            f" the {devices} devices of {slices}; choose two numbers whose product does"
        )
    rows = devices // partitioning.model
    if batch_size % (rows * microbatches):
        parts = "" if microbatches == 1 else f" in {microbatches} microbatches"
        raise UserError(
            f"Data.batch_size {batch_size}{parts} cannot be divided over the {rows} devices of {slices} that"
            f" take rows; choose a multiple of {rows * microbatches}"
        )
