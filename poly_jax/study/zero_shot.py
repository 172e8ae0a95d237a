"""The study of new tasks without examples (docs/zero_shot.md), whose prompts name the skills in words."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.evaluation.unknown_answers import UNKNOWN
from poly_jax.evaluation.unknown_tasks import UnknownTasks, with_shares
from poly_jax.reporting.json_text import json_text
from poly_jax.reporting.output_folder import RESULTS, check_output_folder
from poly_jax.reporting.results_file import Result, ResultsFile
from poly_jax.study.arrays import exact_match, task_arrays
from poly_jax.study.bindings import check_bindings
from poly_jax.study.comparison import keep_compiled, once_shown
from poly_jax.study.methods import MultitaskMethod
from poly_jax.study.processes import single_threaded
from poly_jax.study.rates import TUNING_SEED, choose_multitask_rate
from poly_jax.study.runs import Trained, adapt_run, decode, seen_score, train_method
from poly_jax.study.zero_shot_entries import AS_IT_IS, ENTRIES, FORMS, PUBLISHED_SEEDS, UNIFORM, Entry
from poly_jax.study.zero_shot_summary import summarise
from poly_jax.tasks.skillbench.compositions import Task, benchmark
from poly_jax.tasks.skillbench.descriptions import Wording, description
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.restore import Restored
from poly_jax.transfer.zero_shot import averaged

# PHATGOOSE's gates of all 32 tasks are trained together.
_GATES = ("adapt.steps = 200", "adapt.batch_size = 128")


def reproduce_zero_shot(
    output_dir: str, seeds: Sequence[int] = PUBLISHED_SEEDS, bindings: Sequence[str] = ()
) -> None:
    """Train every method on tasks that are described in words, and test it on new tasks without examples.

    Args:
      output_dir: folder of the runs, `results.jsonl` and `summary.md`. A rerun computes only what is missing.
      seeds: seeds of the adapters, the data and their order.
      bindings: gin bindings on top of the recipes.

    Raises:
      UserError: the folder holds a training run, or the files of another program; or no method reads a
        binding.
    """
    check_bindings([entry.method for entry in ENTRIES], bindings)
    check_output_folder(output_dir, "reproduce")
    folder = epath.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # A process of its own, because the number of XLA's threads is fixed where JAX starts.
    with single_threaded(1) as processes:
        processes.submit(compute, output_dir, tuple(seeds), tuple(bindings)).result()
    text = summarise(ResultsFile(folder / RESULTS), seeds)
    (folder / "summary.md").write_text(text)
    print(text)
    print(f"outputs: {folder} (summary.md, results.jsonl, and a run per method and seed)")


def compute(output_dir: str, seeds: tuple[int, ...], bindings: tuple[str, ...]) -> None:
    """Compute what the file of results in a folder lacks, in this process."""
    folder = epath.Path(output_dir)
    keep_compiled(folder)
    study = Study(folder, ResultsFile(folder / RESULTS), bindings)
    # The methods that the main comparison needs come first.
    for entries in (ENTRIES[:2], ENTRIES[2:]):
        for seed in seeds:
            for entry in entries:
                study.run(entry, seed)


@dataclasses.dataclass(frozen=True)
class Study:
    """Computes the results that a file of results lacks.

    Attributes:
      folder: folder of the runs.
      results: the file of results.
      bindings: gin bindings on top of the recipes.
    """

    folder: epath.Path
    results: ResultsFile
    bindings: tuple[str, ...]

    def run(self, entry: Entry, seed: int) -> None:
        """Train a method with one seed, and score it on its own tasks and on new ones."""
        method = entry.method
        rate = choose_multitask_rate(
            method, lambda rate: self._train(method, TUNING_SEED, rate), self.results
        )
        trained = functools.cache(functools.partial(self._train, method, seed, rate))
        key = {"method": method.name, "seed": seed}

        def seen() -> Result:
            return {"seen": seen_score(trained()), "trained": trained().n_trained, "rate": rate}

        once_shown(self.results, {"stage": "seen", "form": FORMS[0], **key}, seen)
        for answer in entry.answers:
            for form in FORMS:
                if not entry.has_answer(answer, form):
                    continue
                once_shown(
                    self.results,
                    {"stage": "zero-shot", "form": form, "answer": answer, **key},
                    functools.partial(self._score, trained, answer, form),
                )

    def _train(self, method: MultitaskMethod, seed: int, rate: float) -> Trained:
        folder = self.folder / "runs" / f"{method.run_name}-rate{rate:g}-seed{seed}"
        bound = (f"Optimizer.learning_rate = {rate}", "train.report_every = 100")
        return train_method(method, folder, seed=seed, form=FORMS[0], bindings=(*self.bindings, *bound))

    def _score(self, trained, answer: str, form: Wording) -> Result:
        scores = heldout_scores(trained(), answer, form, self.folder)
        return {"heldout": float(np.mean(list(scores.values()))), "per_task": scores}


def heldout_scores(trained: Trained, answer: str, form: Wording, folder: epath.Path) -> dict[str, float]:
    """Exact match on each held-out task's test examples, in percent, without any example to adapt to."""
    tasks = sorted(benchmark().heldout, key=lambda task: task.name)
    names = tuple(registered_name(task.name, form, trained.data_seed) for task in tasks)
    restored = _answering(trained, answer, form, TaskTable(names), tasks, folder)
    parts = [task_arrays(task, "test", trained.data_seed, form, task_id=i) for i, task in enumerate(tasks)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    predicted = decode(restored, arrays)
    return {
        task.name: exact_match(rows, part["decoder_target_tokens"])
        for task, rows, part in zip(tasks, np.split(predicted, len(tasks)), parts, strict=True)
    }


def _answering(
    trained: Trained, answer: str, form: Wording, table: TaskTable, tasks: Sequence[Task], folder: epath.Path
) -> Restored:
    """The model that answers for the tasks of a table."""
    restored = trained.restored
    if answer == AS_IT_IS:
        return restored
    if answer == UNIFORM:
        return averaged(restored, table)
    if answer in UNKNOWN:
        described = dict(zip(table.names, (description(task, form) for task in tasks), strict=True))
        for task in benchmark().train:
            described[registered_name(task.name, trained.form, trained.data_seed)] = description(task)
        path = folder / f"descriptions-{form}-seed{trained.data_seed}.json"
        path.write_text(json_text(described, indent=1))
        shares = UnknownTasks(answer, str(path)).shares(restored.table, table, str, {})
        return with_shares(restored, shares, table)
    return adapt_run(trained, answer, _GATES)
