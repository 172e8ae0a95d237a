"""`poly-jax status`: how far a run or a sweep is, what of it is intact, and where its time went."""

import collections
import datetime

from etils import epath

from poly_jax.configuration import CONFIG_FILE
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.reporting.output_folder import RESULTS
from poly_jax.reporting.results_file import read_results
from poly_jax.reporting.table import print_table
from poly_jax.training.progress import duration
from poly_jax.training.run_status import Checkpoint, RunStatus, run_status
from poly_jax.training.saved_step import read_table
from poly_jax.training.time_spent import KINDS, Report
from poly_jax.weights.tree import listing

_SUMMARY = "summary.md"
_WORKING = {
    True: "a program is working on it",
    False: "no program is working on it",
    None: "it cannot be told whether a program is working on it",
}


def show_status(run: str) -> None:
    """Print the status of a run or of a sweep; nothing is changed, and the backbone is not read.

    Args:
      run: output folder of `train`, `adapt` or `sweep`.

    Raises:
      UserError: there is no such folder, it holds neither a run nor a sweep, or its files are damaged.
    """
    place = epath.Path(run)
    if not place.is_dir():
        raise UserError(f"{run}: there is no such folder; give the output folder of a run or a sweep")
    if (place / CONFIG_FILE).exists():
        _show_run(run, run_status(place))
    elif (place / RESULTS).exists():
        _show_sweep(run, place)
    else:
        raise UserError(
            f"{run} holds neither a run ({CONFIG_FILE}) nor a sweep ({RESULTS}); give the output folder of"
            " one"
        )


def _show_run(run: str, status: RunStatus) -> None:
    print(f"{run}: {_WORKING[status.working]}")
    print(_step(status))
    if not status.checkpoints:
        print("no checkpoint yet")
    for checkpoint in status.checkpoints:
        print(_checkpoint(checkpoint))
    newest = status.newest_intact
    if status.checkpoints:
        print(f"newest intact checkpoint: {newest.folder if newest else 'none'}")
    if newest:
        tasks = read_table(newest.folder).names
        print(f"{counted(len(tasks), 'task')}, {listing(tasks)}")
    if status.time is not None:
        _show_time(status.time)


def _step(status: RunStatus) -> str:
    parts = [f"step {status.step}" + (f" of {status.time.steps}" if status.time else "")]
    report = status.report
    if report is not None:
        parts.append(f"loss {report.loss:.4f} at step {report.step}")
    rate = report.steps_per_second if report is not None else 0.0
    if rate:
        parts.append(f"{rate:.2f} steps/s")
    if rate and status.time and status.step < status.time.steps:
        left = duration((status.time.steps - status.step) / rate)
        parts.append(f"{left} left" + ("" if status.working else " once it goes on"))
    return ", ".join(parts)


def _checkpoint(checkpoint: Checkpoint) -> str:
    state = "intact" if checkpoint.damage is None else f"damaged: {checkpoint.damage}"
    score = f", {checkpoint.score.metric} {checkpoint.score.value:.4g}" if checkpoint.score else ""
    return f"checkpoint {checkpoint.folder.name}{score}{' (best)' if checkpoint.is_best else ''}: {state}"


def _show_time(report: Report) -> None:
    programs = "1 program" if report.programs == 1 else f"{report.programs} programs"
    print(f"{programs} from {_moment(report.began)} to {_moment(report.until)}")
    total = sum(report.seconds.values())
    rows = [
        [name.replace("_", " "), duration(seconds), f"{100 * seconds / max(total, 1e-9):.1f}%"]
        for name, seconds in [*((kind, report.seconds[kind]) for kind in KINDS), ("total", total)]
    ]
    print_table("Where the time went", ["spent on", "time", "share"], rows)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _show_sweep(run: str, place: epath.Path) -> None:
    keys = [key for key, _ in read_results(place / RESULTS)]
    if not all("setup" in key and "method" in key for key in keys):
        raise UserError(f"{run} holds the results of another program; give the output folder of a sweep")
    summary = place / _SUMMARY
    done = summary.exists() and summary.stat().mtime >= (place / RESULTS).stat().mtime
    end = f"the table is in {summary}" if done else "the table is not written yet"
    print(f"{run}: a sweep with {counted(len(keys), 'scored adaptation')}; {end}")
    counts = collections.Counter(str(key["method"]) for key in keys)
    print_table("Scored adaptations", ["method", "count"], [[name, str(n)] for name, n in counts.items()])
