"""Turns what gin raises into the line that a user needs: what is wrong, where, and what to write instead."""

import contextlib
import inspect
import re
import tokenize
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import gin

from poly_jax.configuration.files import missing
from poly_jax.errors import UserError
from poly_jax.suggestion import close_names, did_you_mean

# gin appends these to the message of whatever passes through it, each on a line of its own.
_APPENDED = re.compile(
    r"\n  (?:In call to configurable|No values supplied by Gin|In file|In bindings string)\b"
)
_IN_FILE = re.compile(r'\n  In file "(.+?)", line (\d+)')
_NAME = re.compile(r"(?:[A-Za-z_]\w*/)*(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*")
_BARE_TEXT = re.compile(r"[\w./~-][\w./:~ ,*+-]*")
_VALUES = "write a Python literal (a text in quotes), @CONFIGURABLE or %MACRO"
_CONSTANTS = {"true": "True", "false": "False", "none": "None", "null": "None"}


def one_line(message: str) -> str:
    """The message without what gin appended to it and without line breaks."""
    return " ".join(_APPENDED.split(message, maxsplit=1)[0].split())


def similar(word: str, candidates: Iterable[str]) -> str:
    """`"; did you mean A or B?"` for the candidates close to `word`, ignoring case; `""` when none is."""
    question = did_you_mean(close_names(word, candidates), shown=str)
    return f"; {question}" if question else ""


def parameters() -> dict[str, list[str]]:
    """Parameter names of every registered configurable, by the shortest name that gin files may call it."""
    registry = gin.config._REGISTRY
    return {
        registry.minimal_selector(selector): list(inspect.signature(configurable.wrapped).parameters)
        for selector, configurable in registry.items()
        if not selector.startswith("gin.")
    }


def registry_name(name: str) -> str:
    """The shortest name of a configurable, given a name of it from an error of gin."""
    registry = gin.config._REGISTRY
    return registry.minimal_selector(registry.get_match(name).selector)


def explain(error: BaseException, source: str) -> UserError:
    """The message that a user reads instead of `error`, which gin raised while it read `source`.

    Args:
      error: the error that gin raised.
      source: the gin file or the `--gin.NAME=VALUE`.
    """
    statement = _importing(error)
    if isinstance(error, RecursionError) and statement is None:
        # The message repeats the place of every file in the circle.
        return UserError(f"{source}: the file includes itself, or files include each other in a circle")
    message = one_line(str(error))
    if isinstance(error, UserError) and statement is None:
        # The reader of gin files has named the file.
        return UserError(message)
    if statement:
        place = f"{statement.location.filename or source}, line {statement.location.line_num}"
        return UserError(f"{place}: {_failed_import(statement.module, error)}")
    if isinstance(error, SyntaxError | tokenize.TokenError):
        advice = _syntax(error, source)
    elif found := re.match(r"Unable to open file: (.+?)\. Searched config paths", message):
        advice = missing(found[1])
    elif found := re.match(r"No configurable matching (?:reference )?'@?(.+?)(?:\(\))?'", message):
        known = parameters()
        advice = f"there is no configurable {found[1]!r}" + (
            similar(found[1], known) or f"; there are {', '.join(sorted(known))}"
        )
    elif found := re.match(r"Configurable '(.+?)' doesn't have a parameter named '(.+?)'", message):
        names = parameters()[registry_name(found[1])]
        advice = f"{found[1]} has no parameter {found[2]!r}" + (
            similar(found[2], names) or f"; it has {', '.join(names) or 'none'}"
        )
    elif found := re.match(r"\"?Ambiguous selector '(.+?)', matches \[(.+?)\]", message):
        names = sorted(re.findall(r"'(.+?)'", found[2]))
        advice = f"{found[1]!r} names several configurables; write {' or '.join(names)}"
    else:
        advice = message
    return UserError(f"{_place(error, source)}: {advice}")


def failed_call(error: Exception) -> UserError:
    """The message that a user reads instead of an error of a class or function that gin called."""
    called = re.search(r"In call to configurable '(.+?)'", str(error))
    name = called[1] if called else "a configurable"
    return UserError(
        f"{name} failed with the arguments that are bound: {type(error).__name__}: {one_line(str(error))}"
        " (POLY_JAX_DEBUG=1 shows the traceback)"
    )


def _importing(error: BaseException) -> Any:
    """The import statement of a gin file that raised this; None where something else did."""
    statements = [
        frame.f_locals["statement"]
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "process_import" and frame.f_globals.get("__name__") == "gin.config"
    ]
    return statements[-1] if statements else None


def _failed_import(module: str, error: BaseException) -> str:
    """Why a module cannot be imported: it is not there, or its own code raised an error."""
    reason = one_line(str(error))
    missing_module = re.fullmatch(r"No module named '(.+?)'", reason)
    if missing_module and f"{module}.".startswith(f"{missing_module[1]}."):
        return reason
    if isinstance(error, SyntaxError):
        kind, reason = "SyntaxError", error.msg
        place = f"{error.filename}, line {error.lineno}" if error.filename else ""
    else:
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        kind, place = type(error).__name__, f"{lines[-1].filename}, line {lines[-1].lineno}" if lines else ""
    cause = reason if isinstance(error, UserError) else f"{kind}: {reason}"
    return f"the module {module!r} cannot be imported: {cause}" + (f" ({place})" if place else "")


def _place(error: BaseException, source: str) -> str:
    """`FILE, line N` of an error in a gin file, as precisely as gin says it; the flag itself for a flag."""
    if source.startswith("--"):
        return source
    if isinstance(error, SyntaxError):
        # The tokenizer, which does not know the file, says <string> or <tokenize>.
        known = error.filename and not error.filename.startswith("<")
        return f"{error.filename if known else source}, line {error.lineno}"
    if found := _IN_FILE.search(str(error)):
        return f"{found[1]}, line {found[2]}"
    if isinstance(error, tokenize.TokenError):
        return f"{source}, line {error.args[1][0]}"
    return source


def _syntax(error: SyntaxError | tokenize.TokenError, source: str) -> str:
    """The mistake in a text that gin could not parse."""
    if source.startswith("--gin."):
        name, _, value = source.removeprefix("--gin.").partition("=")
        if not _NAME.fullmatch(name):
            return f"{name!r} cannot be bound; write CONFIGURABLE.PARAMETER=VALUE or MACRO=VALUE"
        return _value(value, f"--gin.{name}=") if value.strip() else "the value is missing"
    if isinstance(error, SyntaxError):
        if token := re.search(r"Failed to parse token '(.+)'", error.msg):
            return _value(token[1], "")
        line = (error.text or "").strip()
        if error.msg.startswith("Unable to parse value"):
            return f"no gin value in {line!r}; {_VALUES}"
        reason = one_line(error.msg).rstrip(".")
        return f"{reason}, in {line!r}" if line else reason
    reason = re.sub(r"^\(['\"](.+)['\"], \(\d+, \d+\)\)$", r"\1", one_line(str(error)))
    return f"{reason.removeprefix('unexpected ')}; a bracket or quote may be left open"


def _value(text: str, prefix: str) -> str:
    """The advice where `text` is not a value; `prefix` is the flag that it was given to."""
    if text.lower() in _CONSTANTS:
        return f"{text} is not a gin value; write {prefix}{_CONSTANTS[text.lower()]}"
    if _BARE_TEXT.fullmatch(text):
        quoted = f"{prefix}\"'{text}'\"" if prefix else repr(text)
        return f"{text} is not a gin value; quote a text: {quoted}"
    return f"{text} is not a gin value; {_VALUES}"


def unset(names: Iterable[str]) -> UserError:
    """The error for bindings that a gin file or program requires and nobody gave."""
    names = list(names)
    flags = " ".join(f"--gin.{name}=VALUE" for name in names)
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    return UserError(f"{' and '.join(names)} {verb} not set; add {flags} or bind {them} in a gin file")


@contextlib.contextmanager
def explain_unset_bindings() -> Iterator[None]:
    """Turn gin's error for an unbound parameter that a program needs into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"Required bindings for `(.+?)` not provided in config: \[(.*?)\]", str(error))
        if found is None:
            raise
        raise unset(f"{found[1]}.{name}" for name in re.findall(r"'(\w+)'", found[2])) from error
    except TypeError as error:
        missing_arguments = re.match(
            r"([\w.<>]+)\(\) missing \d+ required (?:\S+) arguments?: (.*)", str(error)
        )
        call = re.search(r"\n  In call to configurable '(.+?)' (\(<.*)", str(error))
        if missing_arguments is None or call is None:
            raise
        # The message of a call that fails deeper inside the configurable names another function.
        called = re.sub(r"\.__(init|new)__$", "", missing_arguments[1]).rpartition(".")[2]
        if called not in re.findall(r"\w+", call[2]):
            raise
        owner = _shortest_name(call[1], call[2])
        raise unset(f"{owner}.{name}" for name in re.findall(r"'(\w+)'", missing_arguments[2])) from error


def _shortest_name(name: str, said: str) -> str:
    """The name of a configurable in gin files, given the last part of its name and its `repr` from gin."""
    registry = gin.config._REGISTRY
    for selector, entry in registry.items():
        if entry.name == name and said.startswith(f"({entry.wrapped})"):
            return registry.minimal_selector(selector)
    return name
