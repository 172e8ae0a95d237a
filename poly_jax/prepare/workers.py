"""Calls functions in parallel processes, each of which has registered the tasks of a configuration."""

import collections
import contextlib
import functools
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from poly_jax.configuration import Configuration
from poly_jax.data.quiet import held_stderr
from poly_jax.errors import UserError

Call = functools.partial[Any]

# Calls that are waiting in the processes' queue, for each process.
_WAITING = 4
_BROKEN = (
    "a process of `poly-jax prepare` was killed, perhaps because memory was not enough; repeat the command, "
    "with fewer --processes (what is finished is kept)"
)


class Workers:
    """Processes that make calls; use it as a context, after which they have ended.

    One process is this process. Several are started anew when there are calls for them, and end when this
    process ends, for whatever reason.

    Args:
      processes: number of processes.
      configuration: the configuration that registers the tasks in a new process.
    """

    def __init__(self, processes: int, configuration: Configuration) -> None:
        self._processes = processes
        self._configuration = configuration
        self._pool: futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self._processes > 1:
            self._others = set(multiprocessing.active_children())
            # TensorFlow has threads, so that its process cannot be forked.
            context = multiprocessing.get_context("spawn")
            self._pool = futures.ProcessPoolExecutor(self._processes, context, _start, (self._configuration,))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._pool is not None:
            if kind is not None:
                # The calls that are still running serve nothing after an error.
                for child in set(multiprocessing.active_children()) - self._others:
                    child.kill()
            self._pool.shutdown(cancel_futures=True)

    def results(self, calls: "collections.deque[Call]") -> Iterator[tuple[Call, "futures.Future[Any]"]]:
        """Make calls, and yield each with its finished future, in the order in which they finish.

        Args:
          calls: the calls; more may be added while the results are read.

        Raises:
          UserError: a process was killed.
        """
        if self._pool is None:
            while calls:
                call = calls.popleft()
                yield call, _called(call)
            return
        running: dict[futures.Future[Any], Call] = {}
        try:
            while calls or running:
                while calls and len(running) < _WAITING * self._processes:
                    call = calls.popleft()
                    running[self._pool.submit(call)] = call
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    if isinstance(error := future.exception(), futures.BrokenExecutor):
                        raise error
                    yield running.pop(future), future
        except futures.BrokenExecutor as error:
            raise UserError(_BROKEN) from error


def _called(call: Call) -> "futures.Future[Any]":
    future: futures.Future[Any] = futures.Future()
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    return future


def _start(configuration: Configuration) -> None:
    """Prepare a new process for its calls."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Control-C reaches all processes, and the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first process has printed the same messages.
    with held_stderr(), contextlib.redirect_stdout(io.StringIO()):
        loaded = configuration.load()
        loaded.arguments("prepare", output_dir="", configuration=configuration)["data"].register_tasks()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
