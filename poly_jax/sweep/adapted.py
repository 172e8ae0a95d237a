"""The adaptations of a sweep: many are trained in one program, and then each is scored."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.results_file import Result
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.sweep.readings import Readings
from poly_jax.training.open_run import OpenRun
from poly_jax.training.restore import Restored, absolute, place, place_adapters
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.new_adapters import new_adapters
from poly_jax.transfer.one_program import common
from poly_jax.transfer.settings import Settings
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.start import backbone_in_float32, new_rows
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import merge, split

# Every adapted model has one task, under this name.
_TABLE = TaskTable(("adapted",))


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One adaptation.

    Attributes:
      method: the method.
      settings: settings of adapting, including those of the method.
      cell: the task and seed.
      run: the method's run.
      train_split: the split of the few-shot examples.
    """

    method: Method
    settings: Settings
    cell: Cell
    run: OpenRun
    train_split: str

    def examples(self, readings: Readings) -> Mapping[str, np.ndarray]:
        """The few-shot examples."""
        settings = self.settings
        return readings.examples(settings.experiment, self.cell.seqio_task, self.train_split, settings.shots)

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return self.settings.steps if self.settings.variant.trains else 0

    @functools.cached_property
    def program(self) -> tuple[Any, ...]:
        """What jobs have in common that one program makes, all on the same backbone."""
        settings, path = self.settings, self.run.backbone_path
        adapters = new_adapters(settings.variant, self.run.adapters)
        if adapters is not None:
            adapters = adapters.for_tasks((self.cell.seqio_task,))
        model = Transformer(self.run.config, adapters)
        experiment = settings.experiment
        return (
            common(model, settings.variant, settings.optimizer),
            str(self.run.step) if path is None else absolute(path),
            settings.batch_size,
            settings.loss,
            settings.partitioning.mesh_for(experiment.model, experiment.adapters),
            experiment.data.sequence_length,
            experiment.decoding,
        )


@dataclasses.dataclass(frozen=True)
class Adapting:
    """Restored runs on one backbone that several jobs adapt in one program.

    Attributes:
      sources: the runs by their folders, of which the first has the backbone.
      mesh: the devices.
      split: the split that is scored.
      batch_size: examples per batch of the evaluation.
    """

    sources: Mapping[str, Restored]
    mesh: Mesh
    split: str
    batch_size: int

    @classmethod
    def of(cls, jobs: Sequence[Job], mesh: Mesh, split: str, batch_size: int) -> "Adapting":
        """Restore the runs of jobs that share a program; their backbone is read once.

        Raises:
          UserError: something cannot be read, or a run was trained on another backbone.
        """
        sources: dict[str, Restored] = {}
        for job in jobs:
            if job.method.run in sources:
                continue
            if not sources:
                first = place(job.run, mesh)
                sources[job.method.run] = first
                continue
            if first.origin.backbone_hash is not None:
                job.run.check_hash(first.origin.backbone_hash)
            sources[job.method.run] = place_adapters(job.run, mesh)
        return cls(sources, mesh, split, batch_size)

    def results(
        self, jobs: Sequence[Job], readings: Readings, advance: Callable[[int], None]
    ) -> Iterator[tuple[Job, Result]]:
        """Adapt all jobs at once, then score them one by one.

        Args:
          jobs: adaptations that share a program.
          readings: the tasks' examples.
          advance: called with the work done: 1 for each step of an adaptation, and 1 for its evaluation.

        Raises:
          UserError: the loss of a job was not finite; it is raised when the other jobs are scored.
        """
        settings = jobs[0].settings
        ends = collections.Counter(job.steps for job in jobs)
        running, taken = len(jobs), 0

        def step() -> None:
            nonlocal running, taken
            advance(running)
            taken += 1
            running -= ends[taken]

        adaptations = self._adaptations(jobs, readings)
        stack = adapt_many(
            adaptations,
            self._backbone(settings),
            batch_size=settings.batch_size,
            loss=settings.loss,
            advance=step,
        )
        adapted = dataclasses.replace(self._first, model=stack.model, parameters={}, table=_TABLE)
        predictor = Predictor(adapted, settings.experiment.decoding, self.mesh, self.batch_size)
        diverged = None
        for i, (job, adaptation) in enumerate(zip(jobs, adaptations, strict=True)):
            finite = np.isfinite(stack.losses[: job.steps, i])
            if not finite.all():
                # The others are scored first, so that a rerun has them already.
                diverged = diverged or (job, int(np.argmin(finite)) + 1)
                continue
            scorer = readings.scorer(job.settings.experiment, job.cell.seqio_task, self.split)
            metrics = scorer(predictor.with_parameters(merge(stack.frozen, stack.one(i))))
            advance(1)
            yield (
                job,
                {
                    "metrics": metrics,
                    "loss": float(stack.losses[job.steps - 1, i]) if job.steps else None,
                    "trained": adaptation.trained_size if adaptation.variant.trains else 0,
                    "steps": job.steps,
                },
            )
        if diverged is not None:
            job, number = diverged
            raise UserError(
                f"{job.method.label}, {job.cell.column}, seed {job.cell.seed}: the loss of step {number} is"
                " not finite; give the method a lower learning rate. The other results are kept"
            )

    @property
    def _first(self) -> Restored:
        return next(iter(self.sources.values()))

    def _adaptations(self, jobs: Sequence[Job], readings: Readings) -> list[Adaptation]:
        rows = {
            method: new_rows(self.sources[method.run], job.settings.variant, method.init_router_from, 1)
            for method, job in {job.method: job for job in jobs}.items()
        }
        adaptations = []
        for job in jobs:
            settings = job.settings
            source = self.sources[job.method.run]
            adaptations.append(
                Adaptation(
                    source.model,
                    source.parameters,
                    settings.variant,
                    job.examples(readings),
                    job.cell.seed,
                    settings.steps,
                    settings.optimizer,
                    rows[job.method],
                    job.cell.seqio_task,
                )
            )
        return adaptations

    def _backbone(self, settings: Settings) -> dict[str, Any]:
        """The parameters of the T5, in float32 where the variant trains them."""
        if settings.variant.skills == "none":
            return backbone_in_float32(self._first, settings.experiment, self.mesh)
        return split(self._first.parameters, is_adapter_parameter)[1]
