"""The steps of a target: files that are written and commands that are run, shown or executed."""

import dataclasses
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from poly_jax.errors import UserError
from poly_jax.files.whole_file import write_whole

_WIDTH = 110
_END = "END_OF_FILE"


@dataclasses.dataclass(frozen=True)
class Steps:
    """Files, and then commands.

    Attributes:
      commands: words of each command.
      files: text of each file, by its name in the current folder.
    """

    commands: Sequence[Sequence[str]]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def script(self) -> str:
        """Return a shell script that does exactly what `execute` does."""
        parts = [f"cat > {shlex.quote(name)} <<'{_END}'\n{text}{_END}\n" for name, text in self.files.items()]
        return "".join((*parts, *(f"{wrapped(command)}\n" for command in self.commands)))

    def execute(self) -> None:
        """Write the files and run the commands, up to the first one that fails.

        Raises:
          UserError: a program is not installed, or a command fails; its own output says why.
        """
        for program in dict.fromkeys(command[0] for command in self.commands):
            if shutil.which(program) is None:
                raise UserError(
                    f"there is no program {program!r} on this machine; install it (docs/launching.md)"
                )
        for name, text in self.files.items():
            write_whole(pathlib.Path.cwd() / name, text)
        for command in self.commands:
            code = subprocess.run(command, check=False).returncode
            if code:
                raise UserError(f"`{shlex.join(command[:4])} ...` failed with exit code {code}")


def wrapped(words: Sequence[str]) -> str:
    """Quote a command for the shell, with one word a line where it is long."""
    line = shlex.join(words)
    if len(line) <= _WIDTH:
        return line
    lines = [""]
    for word in words:
        # A program and its sub-commands stay together; every flag has a line of its own.
        if word.startswith("-"):
            lines.append(shlex.quote(word))
        else:
            lines[-1] = f"{lines[-1]} {shlex.quote(word)}".strip()
    return " \\\n  ".join(lines)
