"""Reports errors in the code of a user's task in one line that names the task, the part and the cause."""

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError

# The last line of a Python traceback, which TensorFlow quotes in the middle of its own text.
_ERROR_LINE = re.compile(
    r"^\s*(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Exit|Interrupt)): +(\S.*)$", re.M
)
# TensorFlow's own preface, and the place in its graph.
_GRAPH_PLACES = re.compile(r"\{\{[^}]*\}\}|\[\[.*?\]\]|\[Op:[^]]*\]")
# A source may have no end, and reading all of it would then take forever.
_SECONDS_TO_SEARCH = 60


def cause(error: BaseException) -> str:
    """Return in one line the Python error that TensorFlow or seqio reports in many lines."""
    text = str(error)
    quoted = _ERROR_LINE.findall(text)
    if quoted:
        name, message = quoted[-1]
    else:
        lines = [line.strip() for line in _GRAPH_PLACES.sub("", text).splitlines()]
        name, message = type(error).__name__, next((line for line in lines if line), "no message")
    return message if name == UserError.__name__ else f"{name}: {message}"


@contextlib.contextmanager
def blaming(part: str) -> Iterator[None]:
    """Turn an error inside the block into a UserError that says that `part` failed, and why."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{part} failed: {cause(error)} (POLY_JAX_DEBUG=1 shows the traceback)") from error


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Raise the UserError that seqio has wrapped in a ValueError; make any other ValueError a UserError."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, UserError):
            inner = inner.__cause__
        if inner is not None:
            raise UserError(str(inner)) from error
        raise UserError(f"{cause(error)} (POLY_JAX_DEBUG=1 shows the traceback)") from error


def watched(task: seqio.Task) -> seqio.Task:
    """Return the task with preprocessors, postprocessor and metrics that say in one line why they fail."""
    # A subclass may do more than its parts do, and `replace` would make a plain task of it.
    if type(task) is not seqio.Task:
        return task
    of = f"of task {task.name!r}"
    changes: dict[str, Any] = {
        "preprocessors": [
            part if _is_found_by_class(part) else _watched(part, f"preprocessor {name(part)!r} {of}")
            for part in task.preprocessors
        ],
        "metric_fns": [_watched(part, f"metric {name(part)!r} {of}") for part in task.metric_fns],
    }
    if task.postprocessor is not None:
        part = task.postprocessor
        changes["postprocess_fn"] = _watched(part, f"postprocessor {name(part)!r} {of}")
    return task.replace(**changes)


def reading_error(
    tasks: Sequence[seqio.Task], split: str, sequence_length: Mapping[str, int], error: Exception
) -> UserError:
    """Make the UserError for an error that was raised while examples were read.

    TensorFlow does not say whose code failed. Each task is read once more, part by part, until one fails. A
    UserError names the place itself, and tasks may be so many and so large that a search takes hours.

    Args:
      tasks: the tasks that were read.
      split: the split that was read.
      sequence_length: number of tokens of each feature.
      error: the error that was raised.
    """
    quoted = _ERROR_LINE.findall(str(error))
    if quoted and quoted[-1][0] == UserError.__name__:
        return UserError(quoted[-1][1])
    for task in tasks:
        part = _failing_part(task, split, sequence_length)
        if part is not None:
            failing, why = part
            return UserError(f"{failing} of task {task.name!r} failed on split {split!r}: {cause(why)}")
    names = ", ".join(repr(task.name) for task in tasks[:3]) + (", ..." if len(tasks) > 3 else "")
    return UserError(f"reading split {split!r} of {names} failed: {cause(error)}")


def _failing_part(
    task: seqio.Task, split: str, sequence_length: Mapping[str, int]
) -> tuple[str, Exception] | None:
    """Find the first part of a task that cannot make all examples of a split, and its error."""
    part, deadline = "the data source", time.monotonic() + _SECONDS_TO_SEARCH
    try:
        dataset = task.source.get_dataset(split=split, shuffle=False)
        _read_through(dataset, deadline)
        with seqio.utils.map_seed_manager(0):
            for preprocessor in task.preprocessors:
                # The placeholder marks a place in the list, and seqio never calls it.
                if isinstance(preprocessor, seqio.CacheDatasetPlaceholder):
                    continue
                part = f"preprocessor {name(preprocessor)!r}"
                dataset = seqio.utils.add_kwargs_to_transform(
                    preprocessor, sequence_length=dict(sequence_length), output_features=task.output_features
                )(dataset)
                _read_through(dataset, deadline)
    except Exception as error:
        return part, error
    return None


def _read_through(dataset: tf.data.Dataset, deadline: float) -> None:
    for _ in dataset:
        if time.monotonic() > deadline:
            return


def _is_found_by_class(preprocessor: Any) -> bool:
    # seqio recognises the cache placeholder by its class, and fills in the fields of dataclasses.
    return isinstance(preprocessor, seqio.CacheDatasetPlaceholder) or dataclasses.is_dataclass(preprocessor)


def _watched(part: Callable[..., Any], called: str) -> Callable[..., Any]:
    @functools.wraps(part)
    def call(*args: Any, **kwargs: Any) -> Any:
        with blaming(called):
            return part(*args, **kwargs)

    return call


def name(part: Any) -> str:
    """Return a user's name for a function or object that is part of a task."""
    return seqio.utils.function_name(part) or type(part).__name__
