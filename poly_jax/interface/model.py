"""The Python interface to a T5 in memory with adapters for named tasks."""

import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.configuration.gin_text import bindings
from poly_jax.counted import counted
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.text_encoding import encoder_of
from poly_jax.interface.vocabulary import feature
from poly_jax.interop.adapter_checkpoint import lay_out
from poly_jax.interop.adapters import read_adapters
from poly_jax.interop.task_names import numbered, sorted_by_task
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import Partitioning, shardings
from poly_jax.training.restore import Restored
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.weights.layers_apart import layers_apart
from poly_jax.weights.parameter_names import Granularity, is_adapter_parameter
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import merge, split


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A T5 with its parameters and, if it has any, adapters for named tasks; made by `load`.

    Attributes:
      restored: the network, its parameters, the task table and their origin.
      decoding: way to choose outputs.
      inputs_length: number of tokens of an input; longer inputs are cut.
      batch_size: number of examples in a batch.
      vocabulary: vocabulary of inputs and outputs, in a form that `load` accepts.
      run_config: gin bindings of the run that was loaded, which `save` writes again.
      mesh: the device mesh.
    """

    restored: Restored
    decoding: Decoding = Decoding()
    inputs_length: int = 512
    batch_size: int = 8
    vocabulary: Any = None
    run_config: str = ""
    mesh: Mesh = dataclasses.field(default_factory=lambda: Partitioning().mesh())

    @property
    def config(self) -> T5Config:
        """Configuration of the T5."""
        return self.restored.model.config

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have adapters; empty for a bare T5."""
        return self.restored.table.names if self.restored.model.adapters is not None else ()

    def attach(self, adapters: Adapters, tasks: Sequence[str], seed: int = 0) -> "Model":
        """Return this T5 with fresh adapters for tasks, in place of any adapters that it has.

        Args:
          adapters: the inventory and its router, for as many tasks as are named.
          tasks: names of the tasks.
          seed: seed of the fresh adapters.

        Raises:
          UserError: the adapters do not fit the T5 or the tasks.
        """
        table = TaskTable(tuple(sorted(_texts("tasks", tasks))))
        if adapters.n_tasks != len(table):
            raise UserError(
                f"the adapters are for {counted(adapters.n_tasks, 'task')}, and {len(table)} are named"
            )
        model = Transformer(self.config, adapters.for_tasks(table.names))
        return self._with(model, fresh_parameters(model, seed, self.mesh), table)

    def attach_checkpoint(
        self,
        path: str | os.PathLike,
        tasks: Sequence[str] | None = None,
        granularity: Granularity | None = None,
    ) -> "Model":
        """Return this T5 with the adapters of another system, in place of any adapters that it has.

        Args:
          path: path of a PEFT folder (LoRA, (IA)^3 or Poly), or of a file with the reference implementation's
            tensors.
          tasks: names of its tasks in the order of their ids; None for `task_0`, `task_1`, ...
          granularity: the maps that share a router, where the file does not say so because all its routers
            are equal.

        Raises:
          UserError: the path holds no adapters that can be read, the adapters do not fit the T5, or the
            number of names is not the number of tasks.
        """
        _, backbone = split(self.restored.parameters, is_adapter_parameter)
        tensors = layers_apart(of_tree(backbone), path, axis=0)
        read = read_adapters(os.fspath(path), self.config, tensors, granularity)
        adapters = read.adapters(path)
        names = _texts("tasks", tasks) if tasks is not None else numbered(adapters.n_tasks)
        if len(names) != adapters.n_tasks:
            raise UserError(f"{path} has {counted(adapters.n_tasks, 'task')}, and {len(names)} are named")
        tree, in_table = sorted_by_task(read.tree, names, adapters.router.owns_skills)
        model = Transformer(self.config, adapters)
        shapes, axes = parameter_shapes(model)
        places = shardings(split(shapes, is_adapter_parameter)[0], axes, self.mesh)
        placed = jax.device_put(lay_out(tree, model, path), places)
        return self._with(model, placed, TaskTable(in_table))

    def predict(self, texts: Sequence[str], task: str | None = None) -> list[str]:
        """Return the model's outputs for texts, without adding a prompt or a prefix.

        Args:
          texts: the inputs.
          task: name of the task whose adapters are used; None for a bare T5, or where there is one task.

        Raises:
          UserError: there is no such task, or the vocabulary is not known or does not fit the T5.
        """
        inputs, ids = self._inputs(texts, task)
        predictions = self._predictor.predict(inputs, ids)
        return [self._feature.vocabulary.decode(tokens) for tokens in predictions.tokens.tolist()]

    def score(self, texts: Sequence[str], targets: Sequence[str], task: str | None = None) -> list[float]:
        """Return the log-probability of each text's target, summed over its tokens and end of sequence.

        The other arguments and the errors are the same as in `predict`.
        """
        inputs, ids = self._inputs(texts, task)
        targets = _texts("targets", targets)
        if len(targets) != len(inputs):
            raise UserError(
                f"the number of texts is {len(inputs)} and that of targets {len(targets)}; give one for each"
            )
        if not targets:
            return []
        length = max(len(self._feature.vocabulary.encode(target)) + 1 for target in targets)
        encoded = encoder_of(task, self._feature.vocabulary, length, "targets")(targets)
        return self._predictor.score(inputs, encoded, ids).tolist()

    def save(self, folder: str | os.PathLike) -> None:
        """Write a run folder, which `load` and the programs' `--run` accept.

        A backbone that has its own file is not written again: the run refers to that file.

        Raises:
          UserError: there is nothing beside the backbone to save, or the folder is in use.
        """
        restored = self.restored
        trained = restored.parameters
        if restored.origin.backbone is not None:
            if restored.model.adapters is None:
                raise UserError("a bare T5 is saved already, in its own file; attach adapters first")
            trained, _ = split(trained, is_adapter_parameter)
        with tempfile.TemporaryDirectory() as made:
            text = pathlib.Path(made) / "saved.gin"
            text.write_text("\n".join([self.run_config, *self._gin_lines()]) + "\n")
            loaded = configuration.load(["runs/multitask.gin", str(text)])
        write_run(os.fspath(folder), trained, restored.table, self._origin(), loaded.config)

    def _origin(self) -> Origin:
        # Skills that belong to another run are written together with this run's own adapters.
        return self.restored.origin.without_adapters()

    def _gin_lines(self) -> list[str]:
        model, origin = self.restored.model, self.restored.origin
        lines = [*bindings(model.config), *bindings(self.decoding)]
        if model.adapters is not None:
            lines += ["Experiment.adapters = @Adapters", *bindings(model.adapters, skip=("n_tasks",))]
        if origin.backbone is not None:
            lines.append(f"Experiment.backbone = {origin.backbone!r}")
        return lines

    def _with(self, model: Transformer, adapters: dict[str, Any], table: TaskTable) -> "Model":
        _, backbone = split(self.restored.parameters, is_adapter_parameter)
        restored = dataclasses.replace(
            self.restored,
            model=model,
            parameters=merge(backbone, adapters),
            table=table,
            origin=self._origin(),
        )
        return dataclasses.replace(self, restored=restored)

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.restored, self.decoding, self.mesh, self.batch_size)

    @functools.cached_property
    def _feature(self) -> seqio.Feature:
        return feature(self.vocabulary, self.config)

    def _inputs(self, texts: Sequence[str], task: str | None) -> tuple[np.ndarray, np.ndarray]:
        texts = _texts("texts", texts)
        if task is not None and not isinstance(task, str):
            raise UserError(f"task is {task!r}; give the name of one of {', '.join(self.tasks)}")
        if task is not None and not self.tasks:
            raise UserError(f"task is {task!r}, and the T5 has no adapters; attach some first")
        if task is None and len(self.tasks) > 1:
            raise UserError(
                f"say which of the {len(self.tasks)} tasks is meant, such as task={self.tasks[0]!r}"
            )
        task_id = 0 if task is None else self.restored.table.id(task)
        name = self.tasks[task_id] if self.tasks else None
        inputs = encoder_of(name, self._feature.vocabulary, self.inputs_length)(texts)
        return inputs, np.full(len(inputs), task_id, np.int32)


def _texts(name: str, given: Iterable[str]) -> list[str]:
    """The texts of an argument.

    Raises:
      UserError: it is a single text, or something in it is no text.
    """
    if isinstance(given, str):
        raise UserError(f"{name} is a single text, {given!r}; give a list of texts")
    found = list(given)
    for text in found:
        if not isinstance(text, str):
            raise UserError(f"{name} has {text!r}, which is no text; give a list of texts")
    return found
