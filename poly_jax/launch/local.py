"""Runs a job as several processes of this machine, which start, end and start again together."""

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from poly_jax.launch import ends_with_parent
from poly_jax.launch.exit_codes import FINISHED, calls_for_restart
from poly_jax.launch.targets.target import GRACE_SECONDS

_POLL_SECONDS = 0.05
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Starts the processes of a job, watches them, and starts all of them again after a preemption.

    A process that fails ends the others: they would wait for it. Signals that reach this process are passed
    on, and the job is then not started again. On Linux the processes end with this one, even where it is
    killed: otherwise they would go on unseen, and keep the run's folder from the next start.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        env: Mapping[str, str],
        max_restarts: int,
        grace_seconds: float = GRACE_SECONDS,
        output: IO[str] | None = None,
    ):
        """Takes what to run.

        Args:
          command: words of the command of every process.
          processes: number of processes.
          env: environment variables in addition to this process's own.
          max_restarts: number of times that all processes are started again.
          grace_seconds: time between the request to stop and the kill.
          output: file for the processes' lines; None for standard output.
        """
        self._command = command
        self._processes = processes
        self._env = env
        self._max_restarts = max_restarts
        self._grace = grace_seconds
        self._output = output or sys.stdout
        self._lock = threading.Lock()
        self._signals: collections.deque[int] = collections.deque()

    def run(self) -> int:
        """Run the job to its end; return its exit code, as a shell would report it."""
        before = {number: signal.signal(number, self._note) for number in _PASSED_ON}
        try:
            code = self._attempt()
            for restart in range(1, self._max_restarts + 1):
                if self._signals or not calls_for_restart(code):
                    return code
                self._say(f"restart {restart} of at most {self._max_restarts} after exit code {code}")
                code = self._attempt()
            if not self._signals and calls_for_restart(code):
                self._say(f"not started again after {self._max_restarts} restarts")
            return code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _attempt(self) -> int:
        """Run all processes once, until the last has ended; return the exit code that decides."""
        coordinator = f"127.0.0.1:{_free_port()}"
        running = [self._start(index, coordinator) for index in range(self._processes)]
        readers = [self._reader(index, process) for index, process in enumerate(running)]
        try:
            return self._watch(running)
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                process.wait()
            for reader in readers:
                reader.join(timeout=self._grace)

    def _watch(self, running: Sequence[subprocess.Popen]) -> int:
        passed_on, deadline, decided = 0, None, None
        while any(process.poll() is None for process in running):
            for number in list(self._signals)[passed_on:]:
                passed_on += 1
                _tell(running, number)
                deadline = deadline or time.monotonic() + self._grace
            # What a process ends with after it was told to stop says nothing of the cause.
            if decided is None and (failed := _failures(running)):
                decided = _deciding(failed)
                _tell(running, signal.SIGTERM)
                deadline = deadline or time.monotonic() + self._grace
            if deadline is not None and time.monotonic() > deadline:
                _tell(running, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        return _deciding(_failures(running)) if decided is None else decided

    def _start(self, index: int, coordinator: str) -> subprocess.Popen:
        # A session of its own: Ctrl-C in the terminal reaches only this process, which passes it on once.
        return subprocess.Popen(
            _ended_with_this(self._command),
            env={**os.environ, **self._env, **process_variables(coordinator, self._processes, index)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
        )

    def _reader(self, index: int, process: subprocess.Popen) -> threading.Thread:
        assert process.stdout is not None, "it is a pipe"
        lines = process.stdout
        prefix = f"[{index}] " if self._processes > 1 else ""

        def read() -> None:
            for line in lines:
                self._print(prefix + line.rstrip("\n"))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _print(self, line: str) -> None:
        with self._lock:
            print(line, file=self._output, flush=True)

    def _say(self, message: str) -> None:
        self._print(f"poly-jax launch: {message}")


def process_variables(coordinator: str, processes: int, index: int) -> dict[str, str]:
    """Return the environment variables that tell poly-jax of the other processes; none for one process."""
    if processes == 1:
        return {}
    return {
        "POLY_JAX_COORDINATOR": coordinator,
        "POLY_JAX_NUM_PROCESSES": str(processes),
        "POLY_JAX_PROCESS_ID": str(index),
    }


def _ended_with_this(command: Sequence[str]) -> list[str]:
    """The command of a process that does not outlive this one, where the system can do that."""
    if sys.platform != "linux":
        return [*command]
    # -S, -E: the little program needs no packages. `preexec_fn` would do the same between fork and exec, and
    # JAX warns of it, because its threads do not exist there.
    return [sys.executable, "-S", "-E", str(ends_with_parent.__file__), str(os.getpid()), *command]


def _tell(processes: Sequence[subprocess.Popen], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _failures(processes: Sequence[subprocess.Popen]) -> list[int]:
    """The exit codes of processes that ended in error; 128 + N for one that signal N ended."""
    codes = [process.poll() for process in processes]
    return [code if code > 0 else 128 - code for code in codes if code]


def _deciding(failures: Sequence[int]) -> int:
    """The code that decides for processes that ended together: one that rules out a restart, if any does."""
    hopeless = [code for code in failures if not calls_for_restart(code)]
    return (hopeless or list(failures) or [FINISHED])[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
