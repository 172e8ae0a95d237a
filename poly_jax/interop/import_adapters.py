"""`poly-jax import` of adapters: makes a run from a PEFT folder or a file of the reference implementation."""

import os
import pathlib
import tempfile

from poly_jax.adapters.config import Adapters
from poly_jax.configurables import OF_A_RUN
from poly_jax.configuration import Configuration
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.files.new_output import check_new
from poly_jax.interop.adapter_checkpoint import lay_out
from poly_jax.interop.adapters import read_adapters
from poly_jax.interop.peft.folder import CONFIG
from poly_jax.interop.task_names import FILE, numbered, read_names, sorted_by_task
from poly_jax.model.config import NUMERICS, T5Config
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.hashed import hash_with_progress
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import check_tree


def import_adapters(
    source: str,
    output: str,
    configuration: Configuration,
    backbone: str | None = None,
    tasks: str | None = None,
) -> TaskTable:
    """Write adapters as a run that `eval`, `infer` and `adapt` accept.

    The run's configuration is `runs/multitask.gin`, then the settings in the checkpoints, then the user's
    configuration. The user binds `Data`, now or when the run is used, and all settings that the checkpoint
    leaves open: the router and the tasks where there are no router tables, and every setting of the
    reference implementation that differs from its default.

    Args:
      source: path for `poly_jax.interop.adapters.read_adapters`.
      output: folder of the run.
      configuration: the user's configuration.
      backbone: path of the T5 that the adapters were trained on; None for the local folder that a PEFT
        adapter names.
      tasks: file with the names of the tasks in the order of their ids; None for `tasks.json` in a PEFT
        folder, or else `task_0`, `task_1`, ... where the number of tasks is known.

    Returns:
      The tasks of the run.

    Raises:
      UserError: there is nothing readable at the path, the adapters do not fit the backbone, a setting is
        neither in the checkpoint nor in the user's configuration, or `output` is in use.
    """
    check_new(output)
    base = open_backbone(backbone or _named_backbone(source))
    found = T5Config.of_checkpoint(base.stated_fields(), base.path)
    check_tree(t5_parameter_shapes(found), base.tensors, base.path)
    granularity = configuration.load().bound(Adapters).get("granularity")
    read = read_adapters(source, found, base.tensors, granularity)
    lines = [
        *bindings(found, skip=NUMERICS),
        f"Experiment.backbone = {os.fspath(base.path.absolute())!r}",
        *read.gin_lines(),
    ]
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "imported.gin"
        text.write_text("\n".join(lines) + "\n")
        loaded = configuration.load("runs/multitask.gin", str(text))
    loaded.check_read(*OF_A_RUN)
    n_tasks = read.n_tasks
    if n_tasks is None:
        router = loaded.make(Adapters, n_tasks=read.n_skills).router
        # A task owns the skill of its own number, so there are as many tasks as skills.
        n_tasks = read.n_skills if router.owns_skills else None
    names = _names(source, tasks, n_tasks)
    adapters = loaded.make(Adapters, n_tasks=len(names))
    tree, names_in_order = sorted_by_task(read.tree, names, adapters.router.owns_skills)
    tree = lay_out(tree, Transformer(loaded.make(T5Config), adapters.for_tasks(names_in_order)), source)
    digest = hash_with_progress(base.tensors)
    table = TaskTable(names_in_order)
    write_run(output, tree, table, Origin(os.fspath(base.path.absolute()), digest), loaded.config)
    return table


def _named_backbone(source: str) -> str:
    config = pathlib.Path(source).expanduser() / CONFIG
    named = read_json(config).get("base_model_name_or_path") if config.exists() else None
    if not named:
        raise UserError(f"{source} does not say what it adapts; give its backbone with --backbone")
    if not isinstance(named, str) or not pathlib.Path(named).exists():
        raise UserError(
            f"{source} adapts {named}, which is not a local path; give its folder with --backbone"
        )
    return named


def _names(source: str, tasks: str | None, n_tasks: int | None) -> list[str]:
    """Return the names of the tasks in the order of their ids."""
    if tasks is not None:
        return read_names(pathlib.Path(tasks), n_tasks)
    beside = pathlib.Path(source).expanduser() / FILE
    if beside.exists():
        return read_names(beside, n_tasks)
    if n_tasks is None:
        raise UserError(
            f"{source} has no routers, so it does not say how many tasks there are; name them with"
            " --tasks=FILE"
        )
    return numbered(n_tasks)
