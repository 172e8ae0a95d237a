"""Reads the rows of a batch's tasks out of a table that is cut over the devices of a mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from poly_jax.weights.sharding import constrain, devices_in_force, mesh_axes, mesh_in_force, rules_for

_AXES = ("tasks", "splits", "skills")
_LARGEST_PRODUCT = 2**16
"""Above this number of tasks times rows, the gradient is added row by row."""


def task_rows(
    table: Float[Array, "tasks splits skills"], task_ids: Int[Array, "*rows"]
) -> Float[Array, "*rows splits skills"]:
    """The row of each task id, laid out over the mesh as the batch is, with splits over the `model` axis.

    No device holds the whole table. Each reads what it has of all ids' rows, and the parts are added up or
    exchanged. Left to itself, XLA (jax 0.10.2) gathers the table, or computes wrong gradients where the
    table is cut along its splits.
    """
    if devices_in_force() == 1:
        small = table.shape[0] * task_ids.size <= _LARGEST_PRODUCT
        return _rows_of_few(table, task_ids) if small else jnp.take(table, task_ids, axis=0)
    if task_ids.ndim == 0:
        return constrain(task_rows(table, task_ids[None])[0], "heads", None)
    mesh, sizes = mesh_in_force()
    spec = mesh_axes(table.shape, _AXES, rules_for(_AXES), sizes)
    over_tasks = spec[0] or ()

    def local_rows(
        part: Float[Array, "local_tasks local_splits local_skills"], ids: Int[Array, "*rows"]
    ) -> Float[Array, "*rows local_splits local_skills"]:
        if not over_tasks:
            return jnp.take(part, ids, axis=0)
        place = ids - jax.lax.axis_index(over_tasks) * part.shape[0]
        here = (place >= 0) & (place < part.shape[0])
        rows = jnp.take(part, jnp.where(here, place, 0), axis=0)
        return jax.lax.psum(jnp.where(here[..., None, None], rows, 0.0), over_tasks)

    unsharded = (None,) * task_ids.ndim
    rows = jax.shard_map(
        local_rows,
        mesh=mesh,
        in_specs=(spec, PartitionSpec(*unsharded)),
        out_specs=PartitionSpec(*unsharded, *spec[1:]),
    )(table, task_ids)
    names = (*("batch", "segments")[: task_ids.ndim], "heads", None)
    if over_skills := spec[2]:
        # First splits are exchanged for rows, then skills. XLA would gather the rows to do both at once.
        first, *others = mesh_axes(rows.shape, names, rules_for(names), sizes)
        left = tuple(axis for axis in _as_tuple(first) if axis not in _as_tuple(over_skills))
        rows = jax.lax.with_sharding_constraint(rows, PartitionSpec(left, *others[:-1], over_skills))
    return constrain(rows, *names)


@jax.custom_vjp
def _rows_of_few(
    table: Float[Array, "tasks splits skills"], task_ids: Int[Array, "*rows"]
) -> Float[Array, "*rows splits skills"]:
    """The rows, whose gradient is one product: of additions row by row, XLA compiles one for each router."""
    return jnp.take(table, task_ids, axis=0)


def _forward(
    table: Float[Array, "tasks splits skills"], task_ids: Int[Array, "*rows"]
) -> tuple[Array, tuple[Array, Array]]:
    return _rows_of_few(table, task_ids), (task_ids, jnp.arange(table.shape[0]))


def _backward(
    kept: tuple[Array, Array], change: Float[Array, "*rows splits skills"]
) -> tuple[Float[Array, "tasks splits skills"], None]:
    task_ids, tasks = kept
    own = (task_ids.reshape(-1, 1) == tasks).astype(change.dtype)
    rows = change.reshape(len(own), *change.shape[task_ids.ndim :])
    return jnp.einsum("nt,nhk->thk", own, rows, precision=jax.lax.Precision.HIGHEST), None


_rows_of_few.defvjp(_forward, _backward)


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()
