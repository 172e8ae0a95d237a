"""Joins the processes of a program that runs on several hosts."""

import argparse
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

from poly_jax import stopping
from poly_jax.cli.command import Command
from poly_jax.cli.platforms import has_tpu
from poly_jax.errors import UserError

_VARIABLES = {
    "coordinator": "POLY_JAX_COORDINATOR",
    "num_processes": "POLY_JAX_NUM_PROCESSES",
    "process_id": "POLY_JAX_PROCESS_ID",
}
_START = 120
"""Seconds in which all processes have to start."""
_HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as lost."""
# What XLA, Gloo and JAX's coordination service say when a connection to another process ends, and Orbax where
# another process does not arrive at a barrier.
_LOST = re.compile(
    r"gloo|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|heartbeat|coordination|connection (closed|reset)"
    r"|socket closed|unhealthy|barrier",
    re.IGNORECASE,
)
# On these, JAX knows how to find the other processes (jax.distributed.initialize): Slurm, Open MPI and GKE.
_CLUSTERS = (
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_COORDINATOR_ADDRESS",
)
# What Slurm and Open MPI call the number of a process and the number of processes.
_RANKS = (("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
# What JAX says where no cluster is found: a TPU in a machine of its own, without the cloud's metadata.
_NO_CLUSTER = re.compile(r"coordinator_address should be defined|metadata", re.IGNORECASE)


def add_flags(parser: argparse.ArgumentParser, default: Any, shown: bool = True) -> None:
    """Add the flags that say where the other processes of a program are.

    Args:
      parser: the parser of the program or of a command.
      default: value of a flag that is not given.
      shown: whether the help shows them. A command for one process takes them, to say that it is one.
    """
    group: Any = parser
    if shown:
        group = parser.add_argument_group(
            "several hosts",
            "Start the same command on every host. Slurm and Cloud TPU need none of these flags, and the\n"
            f"variables {', '.join(_VARIABLES.values())}\nmay stand for them.",
        )
    for flag, type_, metavar, told in (
        ("--coordinator", str, "HOST:PORT", "address of host 0, with a free port there"),
        ("--num_processes", int, "N", "number of processes of the program"),
        ("--process_id", int, "I", "number of this process, from 0"),
    ):
        help_ = told if shown else argparse.SUPPRESS
        group.add_argument(flag, default=default, type=type_, metavar=metavar, help=help_)


def runs_here(command: Command, args: argparse.Namespace) -> bool:
    """Return whether this process has a part in a command.

    Raises:
      UserError: the flags are incomplete or contradict each other, or the command needs to be alone.
    """
    number, count = _place(args)
    if command.hosts == "one" and count > 1:
        raise UserError(
            f"poly-jax {command.name} runs in one process, and was started in {count}; start it on one host"
        )
    return command.hosts == "together" or not number


@contextlib.contextmanager
def joined(command: Command, args: argparse.Namespace) -> Iterator[None]:
    """Join the other processes, and run the block with output on host 0 only.

    Raises:
      UserError: the flags are incomplete or contradict each other.
      LostHostError: another process did not start in time, or ended or froze in the block.
    """
    given = _given(args)
    if command.hosts != "together":
        # The TPU of several hosts starts only when all of them use it, and JAX would wait for the others.
        if command.hosts == "first" and _place(args)[1] > 1 and has_tpu():
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        yield
        return
    told = bool(given) or any(name in os.environ for name in _CLUSTERS)
    # On the machines of a TPU slice nothing is in the environment: JAX asks the cloud's metadata server.
    if not told and not (has_tpu() and os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")):
        yield
        return
    found = True
    try:
        _initialize(given)
    except Exception as error:
        found = told or not _NO_CLUSTER.search(str(error))
        if found and _LOST.search(str(error)):
            raise LostHostError(
                f"not all processes started within {_START} s ({_first_line(error)})"
            ) from error
        if found:
            raise
    import jax

    if not found or jax.process_count() == 1:
        yield
        return
    try:
        with _silent() if jax.process_index() else contextlib.nullcontext():
            yield
    except (KeyboardInterrupt, UserError):
        raise
    except Exception as error:
        if _LOST.search(str(error)):
            raise LostHostError(_first_line(error)) from error
        raise


class LostHostError(Exception):
    """Another process of the program ended or froze; all of them have to be started again."""


def name() -> str:
    """Return "host 3: " in a program of several processes, and "" in others, to begin a message with."""
    return f"host {_number}: " if _number is not None else ""


_number: int | None = None


def _place(args: argparse.Namespace) -> tuple[int, int]:
    """The number of this process and the number of processes."""
    given = _given(args)
    return (given["process_id"], given["num_processes"]) if given else _place_in_cluster()


def _place_in_cluster() -> tuple[int, int]:
    """The number of this process and the number of processes by the environment; 0 and 1 if it is silent."""
    for rank, size in _RANKS:
        if os.environ.get(rank, "").isdecimal() and os.environ.get(size, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[size])
    hosts = len(os.environ.get("TPU_WORKER_HOSTNAMES", "localhost").split(","))
    slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)
    in_slice = int(os.environ.get("TPU_WORKER_ID") or 0)
    return in_slice + hosts * int(os.environ.get("MEGASCALE_SLICE_ID") or 0), hosts * slices


def _given(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for flag, variable in _VARIABLES.items():
        value = getattr(args, flag, None)
        if value is None and os.environ.get(variable):
            value = os.environ[variable]
            if flag != "coordinator":
                if not value.isdecimal():
                    raise UserError(f"{variable} is {value!r}; give a whole number")
                value = int(value)
        if value is not None:
            found[flag] = value
    if not found:
        return {}
    missing = [flag for flag in _VARIABLES if flag not in found]
    if missing:
        raise UserError(
            f"--{' and --'.join(found)} given without --{' and --'.join(missing)}; give all three, or none"
            " where a cluster says them"
        )
    if not re.fullmatch(r".+:\d+", found["coordinator"]):
        raise UserError(f"--coordinator={found['coordinator']} is not HOST:PORT, such as 10.0.0.2:8476")
    if not 0 <= found["process_id"] < found["num_processes"]:
        raise UserError(
            f"--process_id={found['process_id']} is not from 0 to {found['num_processes'] - 1}, which"
            f" --num_processes={found['num_processes']} allows"
        )
    return found


def _initialize(given: dict[str, Any]) -> None:
    import jax

    global _number
    _number = given.get("process_id")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself; the training loop has its own agreement of all hosts.
    jax.config.update("jax_enable_preemption_service", False)
    _end_at_abort()
    jax.distributed.initialize(
        given.get("coordinator"),
        given.get("num_processes"),
        given.get("process_id"),
        initialization_timeout=_START,
        heartbeat_timeout_seconds=_HEARTBEAT,
        cluster_detection_method="deactivate" if given else None,
    )
    _number = jax.process_index() if jax.process_count() > 1 else None


def _end_at_abort() -> None:
    """End the process with exit code 42 where JAX's coordination service aborts it.

    The service aborts all processes when one has died or frozen, from a thread of its own. The main thread
    may then be inside a collective operation that never ends, so that an exception would not reach it, and
    Python's own handlers of signals would not be called. The callback that XLA has for this cannot be called
    from Python (jaxlib 0.10.2: std::bad_cast).
    """
    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end)
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


# The operating system keeps the address of the function, and Python would free it.
_handler: Any = None


def _end(number: int) -> None:
    print(f"poly-jax: {told_lost('JAX ended the program')}", file=sys.__stderr__, flush=True)
    os._exit(stopping.PREEMPTED)


def told_lost(reason: str) -> str:
    """Return the line about a lost host."""
    return (
        f"{name()}lost another host ({reason[:300]}); start the same command on all hosts again: training"
        " goes on from its last checkpoint"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
