"""A program that is busy in a library when a signal comes is ended with the right exit code."""

import signal
import subprocess
import sys

import pytest

WAITS = """
import ctypes, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from poly_jax import stopping
with stopping.listening(grace=2.0), stopping.Deferral() as deferral:
    deferral.begin()  # Otherwise a signal that comes before the call into C would end the program.
    print("ready", flush=True)
    # A call into C that a signal does not end, as a long compilation is one.
    lock = ctypes.create_string_buffer(64)
    library = ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
@pytest.mark.parametrize("times", [1, 2])
def test_a_busy_program_ends_after_a_second_signal_or_some_time(number, code, times):
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            if times == 2:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(1.2)
                process.send_signal(number)
            assert process.wait(30) == code
            said = process.stderr.read()
            assert ("second signal" if times == 2 else "not ended 2 s after") in said
        finally:
            process.kill()
