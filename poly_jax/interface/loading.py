"""Loads a run, or a T5 without adapters, into memory."""

import dataclasses
import os
from typing import Any

from etils import epath
from jax.sharding import Mesh

from poly_jax import configuration
from poly_jax.counts import check_counts
from poly_jax.data.registry import mixture_or_task
from poly_jax.data.task_table import TaskTable
from poly_jax.interface.model import Model
from poly_jax.interface.vocabulary import beside
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import load_backbone
from poly_jax.training.mesh import Partitioning, check_model
from poly_jax.training.restore import Restored, restore
from poly_jax.training.saved_step import Origin
from poly_jax.training.saved_steps import FOLDER
from poly_jax.weights.backbone import open_backbone

# A T5 without adapters has one task, whose id is 0.
_ANY_TASK = TaskTable(("any",))


def load(
    path: str | os.PathLike,
    vocabulary: Any = None,
    dtype: str | None = None,
    decoding: Decoding | None = None,
    inputs_length: int | None = None,
    batch_size: int = 8,
    mesh: Mesh | None = None,
) -> Model:
    """Load a trained run, or a T5 without adapters.

    The configuration of a run is read from its folder. It does not affect other models or later gin bindings.

    Args:
      path: path of a run or one of its steps, a T5X checkpoint, a Hugging Face folder, or a backbone that
        poly_jax wrote.
      vocabulary: "bytes", the path of a SentencePiece model (with T5's 100 extra ids), or a seqio vocabulary;
        None for the vocabulary of the run, or the one beside the checkpoint.
      dtype: dtype of activations and frozen weights, "float32" or "bfloat16"; None for the run's dtype, or
        float32 without a run.
      decoding: way to choose outputs; None for the run's decoding, or greedy without a run.
      inputs_length: number of tokens of an input; None for the run's length, or 512 without a run.
      batch_size: number of examples in a batch.
      mesh: device mesh with the axes `data`, `fsdp` and `model`, such as `poly_jax.Partitioning().mesh()`;
        None for all devices on the axis `data`, however the run was trained.

    Raises:
      UserError: the path does not hold a run or a T5 that can be read, the mesh does not divide the T5, or a
        number of tokens or examples is not a whole number of at least 1.
    """
    check_counts(None, batch_size=batch_size)
    if inputs_length is not None:
        check_counts(None, inputs_length=inputs_length)
    place = os.fspath(path)
    given = {"vocabulary": vocabulary, "decoding": decoding, "inputs_length": inputs_length}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    numerics = {} if dtype is None else {"dtype": dtype}
    mesh = mesh if mesh is not None else Partitioning().mesh()
    model = _run(place, numerics, vocabulary, mesh) if _is_run(place) else _backbone(place, numerics, mesh)
    return dataclasses.replace(model, batch_size=batch_size, **changes)


def _is_run(path: str) -> bool:
    place = epath.Path(path)
    return (place / FOLDER).is_dir() or (place / "origin").is_dir()


def _run(run: str, numerics: dict[str, Any], vocabulary: Any, mesh: Mesh) -> Model:
    config_file = configuration.run_config(run)
    experiment = configuration.load([config_file]).experiment()
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **numerics))
    check_model(experiment.model, mesh)
    restored = restore(experiment, run, mesh)
    data = experiment.data
    if vocabulary is None and data.mixture:
        data.register_tasks()
        vocabulary = mixture_or_task(data.mixture).output_features["inputs"].vocabulary
    elif vocabulary is None and restored.origin.backbone is not None:
        vocabulary = beside(experiment.backbone or restored.origin.backbone, experiment.model)
    return Model(
        restored,
        experiment.decoding,
        data.inputs_length or Model.inputs_length,
        vocabulary=vocabulary,
        run_config=epath.Path(config_file).read_text(),
        mesh=mesh,
    )


def _backbone(path: str, numerics: dict[str, Any], mesh: Mesh) -> Model:
    stated = open_backbone(path).stated_fields()
    config = dataclasses.replace(T5Config.of_checkpoint(stated, path), **numerics)
    check_model(config, mesh)
    model = Transformer(config)
    parameters, digest = load_backbone(path, model, mesh)
    place = epath.Path(path).expanduser().absolute()
    restored = Restored(model, parameters, _ANY_TASK, place, Origin(os.fspath(place), digest))
    return Model(restored, vocabulary=beside(os.fspath(place), config), mesh=mesh)
