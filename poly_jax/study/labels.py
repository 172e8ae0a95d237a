"""Labels the lines that several processes print to one terminal."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Put `label: ` before every line that is printed inside, on standard output and standard error."""
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
            # One call writes the whole line, so that lines of two processes do not mix.
            self._stream.write(f"{self._label}: {line}\n")
        self._stream.flush()
        return len(text)

    def end(self) -> None:
        """Print a last line that has no line break."""
        if self._line:
            self.write("\n")
