"""Processes of one thread each, for many steps of a small model."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def single_threaded(count: int, *, jobs_each: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Start up to `count` processes, in each of which XLA has one thread.

    Half of the time is tracing and compiling, for which a process uses one core, and steps of so small a
    model gain little from a second.

    Args:
      count: largest number of processes.
      jobs_each: number of jobs after which a process is replaced, so that it does not keep their programs.
    """
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = "1"
    try:
        # The processes are spawned, because JAX's threads do not survive a fork, and an interrupt of the
        # parent ends them at once.
        with ProcessPoolExecutor(
            max_workers=count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_DFL),
            max_tasks_per_child=jobs_each,
        ) as processes:
            yield processes
    finally:
        if before is None:
            del os.environ["NPROC"]
        else:
            os.environ["NPROC"] = before
