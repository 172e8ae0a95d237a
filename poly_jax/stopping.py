"""Ends a program that receives SIGTERM or SIGINT, after its state is saved and within a bounded time."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

PREEMPTED = 42
"""Exit code of a program that was preempted, or lost another host, and goes on when it is started again."""

INTERRUPTED = 130
"""Exit code of a program that its user interrupted; it goes on when it is started again, too."""

# Kubernetes sends SIGKILL 30 s after SIGTERM.
GRACE = 20.0
"""Seconds from the signal to the end of the process, whatever the program is doing."""

_EXIT_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}
# A terminal and a launcher may both pass on what was one signal.
_SAME_SIGNAL = 1.0


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end, and all that the program will go on from is saved."""


class _Received:
    """The signal that this process received, and whether the code that runs ends by itself."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: no signal was received."""
        self.number: signal.Signals | None = None
        self.deferred = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in the main thread."""
        if self.number is None:
            self.number = signal.Signals(number)
            if not self.deferred:
                raise Stopped(f"stopped by {self.number.name}")


_received = _Received()


def requested() -> bool:
    """Whether a signal has asked this process to end."""
    return _received.number is not None


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code of a program that an exception has ended.

    The signal that this process received decides it. Where it received none, another host did, or Python
    itself was interrupted.
    """
    if _received.number is not None:
        return _EXIT_CODES[_received.number]
    return PREEMPTED if isinstance(error, Stopped) else INTERRUPTED


class Deferral:
    """A block that ends by itself, with its state saved, after a signal.

    A signal raises `Stopped` at once until `begin` is called. From then on the block has to look at
    `requested`. Where it does not raise `Stopped` itself, the end of the block does.
    """

    def begin(self) -> None:
        """From now on, a signal only sets `requested`."""
        _received.deferred = True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside this block, a signal raises `Stopped` again."""
        before, _received.deferred = _received.deferred, False
        try:
            yield
        finally:
            _received.deferred = before

    def __enter__(self) -> "Deferral":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if not _received.deferred:
            return
        _received.deferred = False
        if kind is None and _received.number is not None:
            raise Stopped(f"stopped by {_received.number.name}, after the last step was saved")


def stop(saved: str) -> Stopped:
    """Make the exception with which a block that saved its state ends.

    Args:
      saved: the things that were saved, for the user.
    """
    cause = "another host was asked to stop" if _received.number is None else _received.number.name
    return Stopped(f"stopped by {cause}; {saved}")


@contextlib.contextmanager
def listening(grace: float = GRACE) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped` inside the block.

    The process ends at once after a second signal, and `grace` seconds after the first one at the latest,
    with the exit code of the first. Threads other than the main thread cannot receive signals: there, the
    block is run as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.forget()
    # A shell starts background commands with SIGINT ignored, and they should go on ignoring it.
    ours = [number for number in _EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, _received.take) for number in ours}
    # Python calls handlers between two instructions of the main thread, which a compilation keeps busy for
    # minutes. The file descriptor is written to at once, and another thread reads it.
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, grace), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
        thread.join()
        reader.close()


def _watch(reader: socket.socket, grace: float) -> None:
    """End the process after a second signal, or some time after the first, unless `writer` is closed."""
    first = _next_signal(reader)
    if first is None:
        return
    began = time.monotonic()
    while (left := began + grace - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        if _next_signal(reader) is None:
            return
        if time.monotonic() - began > _SAME_SIGNAL:
            _end(first, "a second signal ends the program at once")
    _end(first, f"the program has not ended {grace:.0f} s after {first.name}, and is ended now")


def _next_signal(reader: socket.socket) -> signal.Signals | None:
    """Wait for the next signal; None where no more can come."""
    while byte := reader.recv(1):
        if byte[0] in _EXIT_CODES:
            return signal.Signals(byte[0])
    return None


def _end(first: signal.Signals, reason: str) -> None:
    print(f"poly-jax: {reason}; training goes on from its last checkpoint", file=sys.stderr, flush=True)
    os._exit(_EXIT_CODES[first])
