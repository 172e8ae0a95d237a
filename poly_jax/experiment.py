"""What a run is made of: a T5, its backbone, its adapters and its data. Every program starts from one."""

import dataclasses
from collections.abc import Callable

from poly_jax.adapters.config import Adapters
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.model.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Data:
    """A seqio mixture and how its examples become batches.

    Attributes:
      mixture: name of a registered seqio mixture or task.
      inputs_length: tokens of an input; longer ones are cut.
      targets_length: tokens of a target; longer ones are cut.
      register: registers the mixture's tasks with seqio, such as `@super_natural_instructions.register`; None
        where importing a module (gin's `import`) does.
      split: split to train on.
      batch_size: examples per step, over all devices.
    """

    mixture: str
    inputs_length: int
    targets_length: int
    register: Callable[[], None] | None = None
    split: str = "train"
    batch_size: int = 8

    @property
    def sequence_length(self) -> dict[str, int]:
        """Lengths by seqio's feature names."""
        return {"inputs": self.inputs_length, "targets": self.targets_length}

    def register_tasks(self) -> None:
        """Makes the mixture known to seqio.

        Raises:
          UserError: the function that registers it fails.
        """
        if self.register is None:
            return
        try:
            self.register()
        except UserError:
            raise
        except Exception as error:  # A user's function may raise anything.
            raise UserError(
                f"Data.register, {self.register!r}, failed: {type(error).__name__}: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that training, adapting and evaluating share.

    Attributes:
      model: shape of the T5.
      data: what it learns from.
      adapters: skills and router; the number of tasks is that of the task table. None for a bare T5.
      backbone: path of the frozen weights: a T5X checkpoint, a Hugging Face folder or a `.safetensors` file
        of this project; "random" for untrained ones, as trials need; None where all weights are trained.
      decoding: how outputs are chosen in evaluation.
      check_backbone: whether a run is refused whose backbone's contents have changed since its training.
    """

    model: T5Config
    data: Data
    adapters: Adapters | None = None
    backbone: str | None = None
    decoding: Decoding = Decoding()
    check_backbone: bool = True

    def transformer(self, table: TaskTable) -> Transformer:
        """The model for the tasks of a table, in evaluation mode."""
        if self.adapters is None:
            return Transformer(self.model)
        return Transformer(self.model, self.adapters.for_tasks(table.names))
