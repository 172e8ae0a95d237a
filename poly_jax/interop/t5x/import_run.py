"""`poly-jax import` of a checkpoint that t5x trained with adapters, which becomes a run."""

import os
import pathlib
import tempfile

from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Configuration, Loaded
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.new_output import check_new
from poly_jax.interop.adapter_checkpoint import lay_out
from poly_jax.interop.finite import finite
from poly_jax.interop.t5x import description_files as t5x_run
from poly_jax.model.config import T5Config
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.hashed import hash_with_progress
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.t5x_checkpoint import checkpoint_folder, is_t5x, open_t5x
from poly_jax.weights.tree import check_tree, unflatten


def has_adapters(source: str) -> bool:
    """Whether a path is a T5X checkpoint with skills or routers in it."""
    return is_t5x(source) and any(map(is_adapter_parameter, open_t5x(source)))


def import_t5x_run(
    source: str,
    output: str,
    configuration: Configuration,
    backbone: str | None = None,
    tasks: str | None = None,
) -> TaskTable:
    """Write the skills and routers of a T5X checkpoint as a run that `eval`, `infer` and `adapt` accept.

    The run's configuration is `runs/multitask.gin`, then the `model.gin` beside the checkpoint, and then the
    user's configuration. The user has to bind `Data`, here or when the run is used.

    Args:
      source: folder of the checkpoint, or of the t5x run, for its newest checkpoint.
      output: folder of the run.
      configuration: the user's configuration.
      backbone: path of the frozen T5; None to read it from the checkpoint.
      tasks: file with the names of the tasks; None for `tasks.json` beside the checkpoint.

    Returns:
      The tasks of the run.

    Raises:
      UserError: the checkpoint does not fit its settings or the backbone, or `output` is in use.
    """
    check_new(output)
    folder = os.fspath(epath.Path(checkpoint_folder(source)).absolute())
    table = TaskTable.load(tasks) if tasks is not None else t5x_run.read_described_tasks(folder)
    tensors = open_t5x(folder)
    skills = {name: t for name, t in finite(tensors, source).items() if is_adapter_parameter(name)}
    own = {name: tensor for name, tensor in tensors.items() if not is_adapter_parameter(name)}
    place = folder if backbone is None else os.fspath(epath.Path(backbone).absolute())
    digest = hash_with_progress(own, f"hashing {source}")
    if backbone is not None and digest != hash_with_progress(
        open_backbone(place).tensors, f"hashing {place}"
    ):
        raise UserError(
            f"{backbone} is not the backbone that {source} was trained on (their contents differ); give the"
            " right --backbone, or leave the flag out to use the backbone in the checkpoint"
        )
    loaded = _load(configuration, folder, place)
    loaded.check_read(*OF_A_RUN)
    config = loaded.make(T5Config)
    check_tree(t5_parameter_shapes(config), own, source)
    adapters = loaded.make(Adapters, n_tasks=len(table)).for_tasks(table.names)
    tree = unflatten({name: tensor.load() for name, tensor in skills.items()})
    tree = lay_out(tree, Transformer(config, adapters), source)
    write_run(output, tree, table, Origin(place, digest), loaded.config)
    return table


def _load(configuration: Configuration, folder: str, backbone: str) -> Loaded:
    """Load the run's configuration: first the checkpoint's settings, then the user's."""
    settings = t5x_run.settings_file(folder)
    with tempfile.TemporaryDirectory() as temporary:
        file = pathlib.Path(temporary) / "imported.gin"
        file.write_text(f"Experiment.backbone = {backbone!r}\n")
        return configuration.load("runs/multitask.gin", *([settings] if settings else []), str(file))
