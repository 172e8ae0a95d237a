"""`poly-jax prepare`: writes the tasks of mixtures in the layout of seqio's offline cache."""

import collections
import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import filelock

from poly_jax.configuration import Configuration
from poly_jax.data.registry import mixture_or_task
from poly_jax.errors import UserError
from poly_jax.experiment import Data
from poly_jax.files.durable_file import WriteError, write_durable
from poly_jax.prepare import making, workers
from poly_jax.prepare.making import Place
from poly_jax.prepare.page import page
from poly_jax.prepare.report import Report
from poly_jax.prepare.rows import forgetful
from poly_jax.prepare.task_folder import TaskFolder
from poly_jax.reporting.item_progress import item_progress
from poly_jax.reporting.json_text import json_text
from poly_jax.reporting.output_folder import check_output_folder

_LOCK = ".prepare.lock"
_REPORT = "prepare.json"
_SHOWN = 5


def prepare(
    output_dir: str,
    data: Data,
    mixture: Sequence[str] | None = None,
    processes: int | None = None,
    *,
    configuration: Configuration,
) -> Report:
    """Write the offline cache of every task of some mixtures, and a report about their examples.

    The bytes of the cache depend on the tasks alone, not on the number of processes or on earlier runs that
    were stopped. A task that is complete is checked and kept. Tasks without a `CacheDatasetPlaceholder` are
    left out, because seqio reads them from their own files.

    Args:
      output_dir: local folder of the cache; one cache may hold the tasks of any number of mixtures.
      data: the mixture, and the lengths that the report compares examples with.
      mixture: names of mixtures and tasks; None for the one of `data`.
      processes: number of processes; None for the number of CPUs.
      configuration: the configuration that `data` was made from, which registers the tasks in each process.

    Raises:
      UserError: a name is not known, no task can be cached, a task cannot be read, the folder cannot be
        written, or it holds other files or caches that were made from other data. Finished tasks are kept.
    """
    if "://" in output_dir:
        raise UserError(
            f"--output_dir={output_dir} is not a local folder; prepare a local one, and copy it "
            "there afterwards"
        )
    check_output_folder(output_dir, "prepare")
    forgetful.cache_clear()  # The raw files may have changed since an earlier call in this process.
    data.register_tasks()
    names = _cacheable(list(mixture or [data.mixture]))
    place = Place(os.path.abspath(output_dir), data.sequence_length)
    folder = pathlib.Path(place.cache_dir)
    _check_free(folder, names, output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / _LOCK, timeout=0):
            report = _prepared(names, place, processes or _cpus(), configuration)
            write_durable(folder / _REPORT, json_text(report.content(), indent=1) + "\n")
            write_durable(folder / "prepare.html", page(report))
    except filelock.Timeout:
        raise UserError(
            f"--output_dir={output_dir}: another `poly-jax prepare` is writing there; wait for it, or give "
            "another folder"
        ) from None
    except WriteError as error:
        raise WriteError(f"{error}; mend this and repeat the command (what is finished is kept)") from error
    except PermissionError as error:
        raise WriteError(f"--output_dir={output_dir} cannot be written: {error.strerror}") from error
    report.show()
    print(f"report: {folder / 'prepare.html'}")
    print(f"""to train from this cache, add --gin.Data.cache_dir="'{output_dir}'" to the command""")
    return report


def _check_free(folder: pathlib.Path, names: Sequence[str], output_dir: str) -> None:
    """Refuse a folder that holds files, none of which says that an earlier call made it."""
    # A call that was killed leaves the lock, or at least the folders of tasks.
    if not folder.exists() or (folder / _LOCK).exists() or (folder / _REPORT).exists():
        return
    tasks = {TaskFolder(folder, name).path.relative_to(folder).parts[0] for name in names}
    others = [
        path.name for path in sorted(folder.iterdir()) if path.name not in tasks and path.name[0] != "."
    ]
    if others:
        raise UserError(
            f"--output_dir={output_dir} holds other files ({others[0]}) and no cache of `poly-jax prepare`;"
            " give a new or an empty folder"
        )


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cacheable(mixtures: Sequence[str]) -> list[str]:
    """Return the sorted names of the tasks that support caching."""
    found = [mixture_or_task(name) for name in mixtures]
    tasks = {task.name: task for each in found for task in getattr(each, "tasks", [each])}
    names = sorted(name for name, task in tasks.items() if task.supports_caching)
    without = sorted(set(tasks) - set(names))
    some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    if not names:
        raise UserError(
            f"no task of {', '.join(mixtures)} can be cached ({some}): put seqio.CacheDatasetPlaceholder() "
            "among their preprocessors, before the first one that draws at random or needs a sequence length"
        )
    if without:
        print(
            f"{len(without)} of {len(tasks)} tasks have no seqio.CacheDatasetPlaceholder and are always read "
            f"from their own files: {some}",
            file=sys.stderr,
        )
    return names


def _prepared(names: Sequence[str], place: Place, processes: int, configuration: Configuration) -> Report:
    folders = {name: TaskFolder(place.cache_dir, name) for name in names}
    finished = [name for name in names if folders[name].is_complete]
    with workers.Workers(processes, configuration) as pool:
        kept = _kept(finished, place, pool)
        _make([name for name in names if name not in kept], place, pool)
    return Report.of([folders[name].report() for name in names])


def _kept(finished: Sequence[str], place: Place, pool: workers.Workers) -> set[str]:
    """Return the tasks whose complete folders are as they were written.

    Raises:
      UserError: a folder was made from other data. Nothing has been written then.
    """
    if not finished:
        return set()
    calls = collections.deque(functools.partial(making.check, name, place) for name in finished)
    failed: dict[str, str] = {}
    again: dict[str, str] = {}
    with item_progress("checking", len(finished), "tasks") as advance:
        for call, future in pool.results(calls):
            name = call.args[0]
            why = _outcome(future, name, failed)
            if why is not None:
                again[name] = why
            advance(1)
    _raise(failed, len(finished))
    for name, why in sorted(again.items()):
        print(f"{name} is prepared again: {why}", file=sys.stderr)
    return set(finished) - set(again)


def _make(names: Sequence[str], place: Place, pool: workers.Workers) -> None:
    """Make the caches of tasks; where some fail, the others are made before an error is raised."""
    if not names:
        return
    calls: collections.deque[workers.Call] = collections.deque(
        functools.partial(making.make_task, name, place) for name in names
    )
    failed: dict[str, str] = {}
    # For each large task, its shards by split; None for one that is not made yet.
    shards: dict[str, dict[str, list[Any]]] = {}
    with item_progress("preparing", len(names), "tasks") as advance:
        for call, future in pool.results(calls):
            name = call.args[0]
            outcome = _outcome(future, name, failed)
            if call.func is making.make_shard:
                split, index = call.args[2:4]
                shards[name][split][index] = outcome
                advance(1 / sum(map(len, shards[name].values())))
                if name not in failed and all(map(all, shards[name].values())):
                    calls.append(functools.partial(making.finish, name, place, shards.pop(name)))
            elif call.func is making.make_task and outcome is not None:
                shards[name] = {split: [None] * count for split, count in outcome.items()}
                calls.extend(
                    functools.partial(making.make_shard, name, place, split, index, count)
                    for split, count in outcome.items()
                    for index in range(count)
                )
            elif call.func is making.make_task:
                advance(1)
    _raise(failed, len(names))


def _outcome(future: "futures.Future[Any]", name: str, failed: dict[str, str]) -> Any:
    """Return the result of a call, or None and a new entry of `failed` where its task cannot be read."""
    try:
        return future.result()
    except WriteError:
        raise  # Every other task would fail as well.
    except UserError as error:
        failed.setdefault(name, str(error))
        return None


def _raise(failed: dict[str, str], tasks: int) -> None:
    """Raise one error for all tasks that failed."""
    if not failed:
        return
    name, why = min(failed.items())
    more = f" ({len(failed)} of {tasks} tasks failed; this is {name})" if len(failed) > 1 else ""
    for other, reason in sorted(failed.items())[1:_SHOWN]:
        print(f"{other}: {reason}", file=sys.stderr)
    raise UserError(f"{why}{more}")
