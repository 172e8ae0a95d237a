"""Says which of several processes a line on the terminal is from."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Puts `label: ` before every line that is printed within, to either stream."""
    out, err = _Labelled(sys.stdout, label), _Labelled(sys.stderr, label)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
    for stream in (out, err):
        stream.end()


class _Labelled(io.TextIOBase):
    def __init__(self, stream: TextIO, label: str):
        self._stream = stream
        self._label = label
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            # In one piece, so that lines of two processes do not mix.
            self._stream.write(f"{self._label}: {line}\n")
        self._stream.flush()
        return len(text)

    def end(self) -> None:
        """Prints a last line that nothing has ended."""
        if self._line:
            self.write("\n")
