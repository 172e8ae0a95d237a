"""The command line: the list of commands, their common flags, and `--gin.NAME=VALUE`."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import poly_jax
from poly_jax.cli import commands, many_hosts
from poly_jax.cli.command import Command, path
from poly_jax.configuration import Configuration

_GIN = "--gin."
_JOB = "--"
_EPILOG = """\
`poly-jax COMMAND --help` lists a command's flags. Every command is configured by gin: --gin_file=FILE loads a
file, from the current folder or from those that ship with poly_jax, and --gin.NAME=VALUE sets one value.

Exit codes: 0 success, 1 an error in the input (one line explains it), 2 wrong usage; 42 after SIGTERM and 130
after SIGINT (Ctrl-C): the state is saved, and the same command goes on from there.
Environment: POLY_JAX_DEBUG=1 shows the traceback behind an error. Compiled programs are kept in the user's
cache folder; JAX_COMPILATION_CACHE_DIR names another, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
"""
_CONFIGURATION = """\
The files are read in order, then each --gin.NAME=VALUE, and a later value replaces an earlier one. NAME is
CONFIGURABLE.PARAMETER or a macro of the files. VALUE is a Python literal: a string needs its own quotes
inside the shell's, as in --gin.T5Config.dtype="'bfloat16'". Both flags may be given several times. A NAME
that the command does not read is an error."""


def registry() -> dict[str, Command]:
    """Return every command by name: the `COMMAND` of each module in `poly_jax.cli.commands`."""
    names = [f"{commands.__name__}.{module.name}" for module in pkgutil.iter_modules(commands.__path__)]
    found = [importlib.import_module(name).COMMAND for name in names]
    return {command.name: command for command in found}


def parse(argv: Sequence[str] | None = None) -> tuple[Command, argparse.Namespace, Configuration]:
    """Read a command line (None: the arguments of the process); wrong usage exits the process with 2.

    Returns:
      The command, its flags, and the gin files and bindings that were given.
    """
    known = registry()
    parser, parsers = _parsers(known)
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is the command line of a job, whose bindings are its own.
    own = words[: words.index(_JOB)] if _JOB in words else words
    bindings = [word.removeprefix(_GIN) for word in own if word.startswith(_GIN)]
    for binding in bindings:
        if "=" not in binding:
            parser.error(f"{_GIN}{binding} has no value; write {_GIN}NAME=VALUE in one word")
    rest = words[len(own) :]
    args, unknown = parser.parse_known_args([*(word for word in own if not word.startswith(_GIN)), *rest])
    if unknown:
        # The usage that is shown is the command's own.
        parsers[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return known[args.command], args, Configuration(tuple(args.gin_file), tuple(bindings))


def _parsers(
    known: dict[str, Command],
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the whole command line, and that of each command."""
    parser = argparse.ArgumentParser(
        prog="poly-jax",
        description=poly_jax.__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    many_hosts.add_flags(parser, default=None)
    parser.add_argument("--version", action="version", version=f"poly-jax {poly_jax.__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for name, command in known.items():
        parsers[name] = subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        many_hosts.add_flags(subparser, default=argparse.SUPPRESS, shown=command.hosts != "one")
        group = subparser.add_argument_group("configuration", _CONFIGURATION)
        group.add_argument(
            "--gin_file",
            type=path,
            metavar="FILE",
            action="append",
            default=[],
            help="a gin file from the current folder, or one that ships with poly_jax",
        )
    return parser, parsers
