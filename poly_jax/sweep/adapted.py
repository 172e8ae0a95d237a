"""The adaptations of a sweep: many are trained in one program, and then each is scored."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor
from poly_jax.reporting.results_file import Result
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.sweep.readings import Readings
from poly_jax.training.restore import Restored
from poly_jax.transfer.settings import Settings
from poly_jax.transfer.stacked import adapt_many, one_program
from poly_jax.transfer.start import backbone_in_float32, new_rows
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import merge, split

# Every adapted model has one task, under this name.
_TABLE = TaskTable(("adapted",))


@dataclasses.dataclass(frozen=True)
class Job:
    """One adaptation.

    Attributes:
      method: the method.
      settings: settings of adapting, including those of the method.
      cell: the task and seed.
    """

    method: Method
    settings: Settings
    cell: Cell

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return self.settings.steps if self.settings.variant.trains else 0

    def shares_program(self, other: "Job") -> bool:
        """Whether one program can make both: methods may differ in learning rates and in steps alone."""
        return (
            self.method.run == other.method.run
            and self.method.init_router_from == other.method.init_router_from
            and _common(self.settings) == _common(other.settings)
        )


def _common(settings: Settings) -> Settings:
    return dataclasses.replace(settings, steps=0, optimizer=one_program(settings.optimizer))


@dataclasses.dataclass(frozen=True)
class Adapting:
    """A restored run that several jobs adapt in one program.

    Attributes:
      source: the run.
      mesh: the devices.
      split: the split that is scored.
      train_split: the split of the few-shot examples; "{seed}" in it stands for the seed.
      batch_size: examples per batch of the evaluation.
    """

    source: Restored
    mesh: Mesh
    split: str
    train_split: str
    batch_size: int

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
        settings, cells = jobs[0].settings, [job.cell for job in jobs]
        variant = settings.variant
        source = self._with_trainable_backbone(settings)
        ends = collections.Counter(job.steps for job in jobs)
        running, taken = len(jobs), 0

        def step() -> None:
            nonlocal running, taken
            advance(running)
            taken += 1
            running -= ends[taken]

        stack = adapt_many(
            source.model,
            source.parameters,
            variant,
            [
                readings.examples(
                    settings.experiment,
                    cell.seqio_task,
                    self.train_split.replace("{seed}", str(cell.seed)),
                    settings.shots,
                )
                for cell in cells
            ],
            [cell.seed for cell in cells],
            steps=[job.settings.steps for job in jobs],
            batch_size=settings.batch_size,
            optimizer=[job.settings.optimizer for job in jobs],
            loss=settings.loss,
            rows=new_rows(source, variant, jobs[0].method.init_router_from, 1),
            tasks=[cell.seqio_task for cell in cells],
            advance=step,
        )
        adapted = dataclasses.replace(source, model=stack.model, parameters={}, table=_TABLE)
        predictor = Predictor(adapted, settings.experiment.decoding, self.mesh, self.batch_size)
        count = sum(leaf.size for leaf in jax.tree.leaves(stack.trained)) // len(cells)
        diverged = None
        for i, job in enumerate(jobs):
            finite = np.isfinite(stack.losses[: job.steps, i])
            if not finite.all():
                # The others are scored first, so that a rerun has them already.
                diverged = diverged or (job, int(np.argmin(finite)) + 1)
                continue
            scorer = readings.scorer(settings.experiment, job.cell.seqio_task, self.split)
            metrics = scorer(predictor.with_parameters(merge(stack.frozen, stack.one(i))))
            advance(1)
            yield (
                job,
                {
                    "metrics": metrics,
                    "loss": float(stack.losses[job.steps - 1, i]) if job.steps else None,
                    "trained": count if variant.trains else 0,
                    "steps": job.steps,
                },
            )
        if diverged is not None:
            job, number = diverged
            raise UserError(
                f"{job.method.label}, {job.cell.column}, seed {job.cell.seed}: the loss of step {number} is"
                " not finite; give the method a lower learning rate. The other results are kept"
            )

    def _with_trainable_backbone(self, settings: Settings) -> Restored:
        if settings.variant.skills != "none":
            return self.source
        adapters, _ = split(self.source.parameters, is_adapter_parameter)
        backbone = backbone_in_float32(self.source, settings.experiment, self.mesh)
        return dataclasses.replace(self.source, parameters=merge(backbone, adapters))
