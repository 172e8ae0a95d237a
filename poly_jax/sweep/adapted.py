"""The adaptations of a method in a sweep: many are trained in one program, and then each is scored."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.evaluation.predict import Predictor
from poly_jax.reporting.results_file import Result
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.sweep.readings import Readings
from poly_jax.training.restore import Restored
from poly_jax.transfer.settings import Settings
from poly_jax.transfer.stacked import adapt_many
from poly_jax.transfer.start import backbone_in_float32, new_rows
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import merge, split

# Every adapted model has one task, under this name.
_TABLE = TaskTable(("adapted",))


@dataclasses.dataclass(frozen=True)
class Adapting:
    """The restored run of a method, and the settings of its adaptations.

    Attributes:
      method: the method.
      settings: settings of the adaptations, including those of the method.
      source: the run.
      mesh: the devices.
      split: the split that is scored.
      train_split: the split of the few-shot examples; "{seed}" in it stands for the seed.
      batch_size: examples per batch of the evaluation.
    """

    method: Method
    settings: Settings
    source: Restored
    mesh: Mesh
    split: str
    train_split: str
    batch_size: int

    def results(
        self, cells: Sequence[Cell], readings: Readings, advance: Callable[[int], None]
    ) -> Iterator[tuple[Cell, Result]]:
        """Adapt to all cells at once, then score them one by one.

        Args:
          cells: the tasks and seeds to adapt to.
          readings: the tasks' examples.
          advance: called with the work done: 1 for each step of an adaptation, and 1 for its evaluation.
        """
        settings, variant = self.settings, self.settings.variant
        source = self._with_trainable_backbone()
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
            steps=settings.steps,
            batch_size=settings.batch_size,
            optimizer=settings.optimizer,
            loss=settings.loss,
            rows=new_rows(source, variant, self.method.init_router_from, 1),
            tasks=[cell.seqio_task for cell in cells],
            advance=lambda: advance(len(cells)),
        )
        adapted = dataclasses.replace(source, model=stack.model, parameters={}, table=_TABLE)
        predictor = Predictor(adapted, settings.experiment.decoding, self.mesh, self.batch_size)
        count = sum(leaf.size for leaf in jax.tree.leaves(stack.trained)) // len(cells)
        for i, cell in enumerate(cells):
            scorer = readings.scorer(settings.experiment, cell.seqio_task, self.split)
            metrics = scorer(predictor.with_parameters(merge(stack.frozen, stack.one(i))))
            loss = float(stack.losses[-1, i]) if len(stack.losses) else None
            advance(1)
            yield (
                cell,
                {
                    "metrics": metrics,
                    "loss": loss,
                    "trained": count if variant.trains else 0,
                    "steps": len(stack.losses),
                },
            )

    def _with_trainable_backbone(self) -> Restored:
        if self.settings.variant.skills != "none":
            return self.source
        adapters, _ = split(self.source.parameters, is_adapter_parameter)
        backbone = backbone_in_float32(self.source, self.settings.experiment, self.mesh)
        return dataclasses.replace(self.source, parameters=merge(backbone, adapters))
