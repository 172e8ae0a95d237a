"""Agreement among the processes (hosts) of one program."""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Shaped

from poly_jax.errors import UserError

T = TypeVar("T")
_LONGEST = 4096


def any_host(mesh: Mesh, flag: bool) -> Bool[Array, ""] | Bool[np.ndarray, ""]:
    """Return whether the flag of any host is set, without waiting for the result.

    Every host must call this function at the same place of its program.

    Args:
      mesh: the devices of all hosts.
      flag: this host's flag.
    """
    if jax.process_count() == 1:
        return np.asarray(flag)
    everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    own = np.full(mesh.size, flag)
    flags = jax.make_array_from_callback(own.shape, everywhere, own.__getitem__)
    return _any(NamedSharding(mesh, PartitionSpec()))(flags)


def _any(place: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    if place not in _compiled:
        _compiled[place] = jax.jit(jnp.any, out_shardings=place)
    return _compiled[place]


_compiled: dict[NamedSharding, Callable[[jax.Array], jax.Array]] = {}


def of_all_hosts(rows: Shaped[np.ndarray, "rows ..."]) -> Shaped[np.ndarray, "all_rows ..."]:
    """Join the rows of all hosts, in the order of the hosts."""
    if jax.process_count() == 1:
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def on_first_host(work: Callable[[], None]) -> None:
    """Do something on host 0 while the others wait.

    Raises:
      UserError: on every host, where the work raises it or an OSError on host 0.
    """
    if jax.process_count() == 1:
        work()
        return
    error = b""
    if jax.process_index() == 0:
        try:
            work()
        except (UserError, OSError) as raised:
            error = str(raised).encode()[:_LONGEST] or b"failed"
    if text := _from_first_host(error):
        raise UserError(text.decode(errors="replace"))


def on_every_host(work: Callable[[], T]) -> T:
    """Do something on every host, which fails on all of them where it fails on one.

    A host that fails alone would end alone, and the others could only say that they lost it.

    Returns:
      What the work returned on this host.

    Raises:
      UserError: on every host, where the work raises it or an OSError on one. The message on the other hosts
        names that host.
    """
    if jax.process_count() == 1:
        return work()
    result, error = None, None
    try:
        result = work()
    except (UserError, OSError) as raised:
        error = raised
    told = (str(error).encode()[:_LONGEST] or b"failed") if error else b""
    texts = of_all_hosts(np.frombuffer(told.ljust(_LONGEST, b"\0"), np.uint8)[None])
    if error is not None:
        raise UserError(str(error)) from error
    for host, text in enumerate(texts):
        if text.any():
            raise UserError(f"host {host} failed: {bytes(text).rstrip(bytes(1)).decode(errors='replace')}")
    return cast(T, result)


def _from_first_host(text: bytes) -> bytes:
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(text.ljust(_LONGEST, b"\0"), np.uint8))
    return bytes(np.asarray(told).tobytes()).rstrip(b"\0")
