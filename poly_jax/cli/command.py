"""The interface of one command of `poly-jax`."""

import abc
import argparse
import os
from typing import Any, ClassVar, Literal

from poly_jax.configuration import Configuration
from poly_jax.evaluation.unknown_answers import UNKNOWN


class Command(abc.ABC):
    """One command: a module of `poly_jax.cli.commands` holds an instance as `COMMAND`.

    Attributes:
      name: the word that the user types.
      help: one line for the list of commands.
      example: a command line to show under the command's help.
      hosts: the work of several hosts: "together" they share the work; "first" leaves it to host 0; "one"
        refuses more than one.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    example: ClassVar[str]
    hosts: ClassVar[Literal["together", "first", "one"]] = "one"

    @abc.abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own flags."""

    @abc.abstractmethod
    def run(self, args: argparse.Namespace, config: Configuration) -> None:
        """Load the configuration and call the program, which must be imported inside this method."""


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the flags that the user gave; the configuration decides the remaining arguments."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def path(text: str) -> str:
    """An argparse type: a path, with `~` and environment variables replaced by their values."""
    if not text:
        # An empty path would stand for the current folder. A variable of the shell may not be set.
        raise argparse.ArgumentTypeError("the path is empty; give one")
    return os.path.expanduser(os.path.expandvars(text))


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return number


def add_unknown_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to answer for a task which the run does not know."""
    parser.add_argument(
        "--unknown",
        choices=UNKNOWN,
        help="how to answer for a task that the run does not know: by the mean of all rows of its "
        "router, by the row of the task whose text is most similar, or by a row that ridge regression "
        "predicts from the tasks' texts",
    )
    parser.add_argument(
        "--descriptions",
        type=path,
        metavar="FILE",
        help="texts that describe tasks, for --unknown=nearest and --unknown=regression: JSON, an object by "
        "the tasks' names (default: the first inputs of each task)",
    )
