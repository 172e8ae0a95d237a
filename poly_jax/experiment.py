"""The parts of a run, which every program starts from: a T5, its backbone, its adapters and its data."""

import dataclasses
from collections.abc import Callable
from typing import get_args

from poly_jax.adapters.config import Adapters
from poly_jax.counts import check_counts
from poly_jax.data.batches import Reading
from poly_jax.data.packing import Packing
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.model.transformer import Transformer


def call_register(register: Callable[[], None], binding: str) -> None:
    """Call a function that registers tasks with seqio.

    Args:
      register: the function.
      binding: the parameter that it is bound to, for the message.

    Raises:
      UserError: the function fails.
    """
    try:
        register()
    except UserError:
        raise
    except Exception as error:  # A user's function may raise anything.
        raise UserError(f"{binding}, {register!r}, failed: {type(error).__name__}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Data:
    """A seqio mixture and the shape of its batches.

    Attributes:
      mixture: name of a registered seqio mixture or task.
      inputs_length: number of tokens of an input; longer inputs are cut.
      targets_length: number of tokens of a target; longer targets are cut.
      register: function that registers the mixture's tasks with seqio, such as
        `@super_natural_instructions.register`; None where a module registers them when gin imports it.
      split: name of the split to train on.
      batch_size: number of rows in a step, over all devices. A row is one example, unless rows are packed.
      packing: way to pack examples into rows in training: "none" pads one example to a row; "first-fit"
        and "best-fit" put several examples of any tasks into a row (`poly_jax.data.packing.Waiting`). A row
        has the lengths above.
      max_segments: largest number of examples in a packed row. The adapters' part of a step grows with it.
      reading: way to read examples in training. "indexed" holds the tokens of all tasks in memory, and needs
        only their rates and the seed to find any place; it serves thousands of tasks. "streamed" reads by
        seqio's own pipelines, one for each task: for sources without end or larger than the memory, and for
        mixtures with a `sample_fn` of their own.
      cache_dir: folder that `poly-jax prepare` has written, from which training reads the tasks; None to read
        their own files.
    """

    mixture: str
    inputs_length: int
    targets_length: int
    register: Callable[[], None] | None = None
    split: str = "train"
    batch_size: int = 8
    packing: Packing = "none"
    max_segments: int = 16
    reading: Reading = "indexed"
    cache_dir: str | None = None

    def __post_init__(self):
        for name, choices in (("packing", Packing), ("reading", Reading)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(map(repr, get_args(choices)))
                raise UserError(f"Data.{name} is {getattr(self, name)!r}; use one of {known}")
        check_counts("Data", batch_size=self.batch_size, max_segments=self.max_segments)
        # An experiment without data has neither a mixture nor lengths.
        if self.mixture or self.inputs_length or self.targets_length:
            check_counts("Data", inputs_length=self.inputs_length, targets_length=self.targets_length)

    @property
    def sequence_length(self) -> dict[str, int]:
        """Number of tokens of each seqio feature, by its name."""
        return {"inputs": self.inputs_length, "targets": self.targets_length}

    def register_tasks(self) -> None:
        """Register the mixture with seqio.

        Raises:
          UserError: the function that registers it fails.
        """
        if self.register is not None:
            call_register(self.register, "Data.register")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that training, adapting and evaluating share.

    Attributes:
      model: configuration of the T5.
      data: the mixture that the model learns from.
      adapters: skills and router; None for a bare T5. The number of tasks comes from the task table.
      backbone: path of the frozen weights: a T5X checkpoint, a Hugging Face folder or a `.safetensors` file
        of this project; "random" for untrained weights in trials; None where all weights are trained.
      decoding: way to choose outputs in evaluation.
      check_backbone: whether to refuse a run if the contents of its backbone have changed since its training.
    """

    model: T5Config
    data: Data
    adapters: Adapters | None = None
    backbone: str | None = None
    decoding: Decoding = Decoding()
    check_backbone: bool = True

    def transformer(self, table: TaskTable) -> Transformer:
        """Make the model for the tasks of a table, in evaluation mode."""
        if self.adapters is None:
            return Transformer(self.model)
        return Transformer(self.model, self.adapters.for_tasks(table.names))
