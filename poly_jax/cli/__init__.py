"""The program `poly-jax`: one command line for training, adapting, evaluating and predicting."""

import atexit
import contextlib
import dataclasses
import gc
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from poly_jax import program_start, stopping
from poly_jax.cli import many_hosts
from poly_jax.cli.allocation import reuse_memory
from poly_jax.cli.arguments import parse
from poly_jax.cli.compilation_cache import keep_compiled_programs
from poly_jax.cli.platforms import leave_out_tpu
from poly_jax.cli.unfinished_writes import hide_unfinished_writes
from poly_jax.configuration import explain_unset_bindings, one_line
from poly_jax.errors import UserError

__all__ = ["main", "program"]

_LONGEST_LINE = 4000
# The shell's exit code for a program that SIGPIPE ended.
_OUTPUT_CLOSED = 128 + signal.SIGPIPE
_OUT_OF_MEMORY = (
    "the memory of this machine is not enough ({cause}); choose a smaller batch size or model, shorter"
    " sequences, or more train.microbatches"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: the words after the program's name; None takes the arguments of the process.

    Returns:
      The exit code: 0 for success; 1 after an error in the user's input, with one line on standard error; 42
      after SIGTERM or the loss of another host, and 130 after SIGINT, with all saved that a rerun goes on
      from; 141 where nobody reads the output any more. Wrong usage exits the process with 2, as argparse
      does.
    """
    if argv is None:
        program_start.mark()
    # JAX and TensorFlow read the variable when they are imported, which no command has done yet. XLA's and
    # CUDA's own messages, such as the one about a slow compilation, add nothing to the program's messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    leave_out_tpu()
    command, args, config = parse(argv)
    if argv is None and command.hosts == "together":
        # A model computes. Where only data is read, many threads would wait for one heap.
        reuse_memory()
    keep_compiled_programs()
    try:
        if not many_hosts.runs_here(command, args):
            return 0
        with stopping.listening(), many_hosts.joined(command, args), explain_unset_bindings():
            command.run(args, config)
    # An OSError means that a folder cannot be created or written, or that a disk is full. Only the user can
    # fix that.
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return _OUTPUT_CLOSED
        return _told(error, _of_file(error) if isinstance(error, OSError) else str(error))
    except KeyboardInterrupt as stopped:
        if str(stopped):
            print(f"poly-jax: {many_hosts.name()}{stopped}", file=sys.stderr, flush=True)
        return stopping.exit_code(stopped)
    except many_hosts.LostHostError as lost:
        print(f"poly-jax: {many_hosts.told_lost(str(lost))}", file=sys.stderr, flush=True)
        return stopping.PREEMPTED
    except Exception as error:
        # JAX has no exception of its own for memory: its message begins with the name of the condition.
        if not isinstance(error, MemoryError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return _told(error, _OUT_OF_MEMORY.format(cause=str(error) or type(error).__name__))
    return 0


def program() -> NoReturn:
    """Run the command of this process's arguments, and end the process with its exit code."""
    # Imports and tracing make millions of objects that stay. Python's default looks for cycles among them
    # after every 700, which takes a tenth of a command's start.
    gc.set_threshold(100_000, 20, 20)
    hide_unfinished_writes()
    # What is registered first runs last, when libraries' threads and exit handlers are done.
    ended = _Ended()
    atexit.register(ended.leave)
    try:
        code = main()
    except SystemExit as usage:
        ended.code = usage.code if isinstance(usage.code, int) else 1
        raise
    except KeyboardInterrupt:
        ended.code = stopping.INTERRUPTED
        raise
    except Exception as error:
        if not many_hosts.name():
            raise
        # Otherwise JAX would wait for the other hosts for minutes, and they for this one.
        traceback.print_exception(error)
        print(f"poly-jax: {many_hosts.name()}ended by the error above", file=sys.stderr, flush=True)
        os._exit(1)
    # The command is done, and what is left takes no time: its exit code should say how it ended.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ended.code = code or (_OUTPUT_CLOSED if _output_is_closed() else 0)
    if ended.code in (stopping.PREEMPTED, stopping.INTERRUPTED) or (ended.code and many_hosts.name()):
        # Libraries' threads may hold up the end of the interpreter, and SIGKILL comes soon. With several
        # hosts, JAX would wait for those that wait for this one.
        ended.leave()
    sys.exit(ended.code)


@dataclasses.dataclass
class _Ended:
    """The end of this process, with the exit code that it has by then; 1 stands for an error."""

    code: int = 1

    def leave(self) -> NoReturn:
        """Leave without taking modules and programs apart, which takes over a second and frees nothing."""
        logging.shutdown()  # Its own handler, from an import of this module, would run after this one.
        for stream in (sys.stdout, sys.stderr):
            # Where nobody reads the output any more, the exit code says so.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)


def _output_is_closed() -> bool:
    """Whether the program that reads the output, such as `head`, has ended."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    # Where nothing is buffered, the system still knows.
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _of_file(error: OSError) -> str:
    """The message for an error of the file system: the path, the system's reason and what to do."""
    if error.filename is None or not error.strerror:
        return str(error)
    reason = error.strerror[0].lower() + error.strerror[1:]
    return f"{error.filename}: {reason}; check the path, its permissions and the room on its disk"


def _told(error: Exception, message: str) -> int:
    """Print one line about an error, after the traceback where a user asks for it; return the exit code."""
    if os.environ.get("POLY_JAX_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"poly-jax: error: {many_hosts.name()}{_shortened(one_line(message))}", file=sys.stderr)
    return 1


def _shortened(line: str) -> str:
    """Cut out the middle of a very long line, which a damaged file may cause."""
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
