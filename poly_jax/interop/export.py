"""`poly-jax export`: writes a run or a backbone in another system's format, a few tensors at a time."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from poly_jax.data.tokenizer import Tokenizer, copy_tokenizer, find_tokenizer
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.files.new_output import check_new
from poly_jax.interop.formats import Format
from poly_jax.interop.hugging_face.writer import write_hugging_face, write_tokenizer
from poly_jax.interop.peft.writer import write_peft_lora, write_peft_poly
from poly_jax.interop.t5x.description_files import write_description
from poly_jax.interop.task_mix import merged, task_id
from poly_jax.model.config import T5Config
from poly_jax.reporting.byte_progress import byte_progress
from poly_jax.reporting.output_folder import check_output_file
from poly_jax.routing.input_router import no_single_adapter
from poly_jax.training.open_run import OpenRun, open_run
from poly_jax.training.saved_step import read_origin, read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.weights import backbone_folder, single_file
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.safetensors_writer import Advance
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.t5x_writer import write_t5x
from poly_jax.weights.tensors import Tensors, of_tree, total_bytes
from poly_jax.weights.tree import check_tree


def export_run(
    run: str,
    output: str,
    format: Format,
    experiment: Experiment,
    task: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write a run in another format.

    Args:
      run: folder of the run, or one of its checkpoints.
      output: for "backbone" a `.safetensors` file or a folder; for "t5x" the folder in which
        `checkpoint_<step>` is made; otherwise the folder of the model or adapter.
      format: "backbone" (this project's own format), "t5x" and "hugging_face" write a T5 without adapters: a
        task's adapters are merged into its kernels. "t5x_adapters" writes a T5 with all skills and routers,
        for the plug-in for t5x. "peft_poly" writes the skills and routers alone, "peft_lora" one task's mix.
      experiment: the run's experiment.
      task: name of the task whose adapters are written; None where the run has one task, or no adapters.
      tokenizer: tokenizer to write beside a Hugging Face model whose backbone has none, or None.

    Raises:
      UserError: the run cannot be written in this format, or `output` is in use.
    """
    _check_output(output, format)
    adapters, own_backbone = experiment.adapters, format == "backbone" and task is None
    if (
        adapters is not None
        and adapters.router.reads_inputs
        and format != "t5x_adapters"
        and not own_backbone
    ):
        raise no_single_adapter(adapters.router)
    one = format in ("t5x", "hugging_face", "peft_lora") and adapters is not None
    if one or task is not None:
        # This check comes before the backbone is read, which takes long.
        task_id(read_table(step_folder(run)), task)
    if format in ("peft_poly", "peft_lora"):
        _write_peft(run, output, format, experiment, task)
        return
    if format == "t5x_adapters":
        _write_t5x_adapters(run, output, experiment, task)
        return
    frozen = read_origin(step_folder(run)).backbone
    if own_backbone and frozen is not None:
        raise UserError(
            f"{run} trained adapters and left its backbone {frozen} as it was; only the backbone of a run"
            " with train.trainable 'all' can be exported, or one with --task merged into it"
        )
    weights = open_run(run, experiment)
    tensors = _without_adapters(run, weights, format, task)
    _write(output, format, tensors, weights.config, max(weights.number, 1))
    if format == "hugging_face":
        _add_tokenizer(output, experiment.backbone or weights.origin.backbone, weights.config, tokenizer)


def export_backbone(
    backbone: str,
    output: str,
    format: Format,
    settings: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write a backbone of any kind that `open_backbone` reads in another format.

    Args:
      backbone: path of the backbone.
      output: path of the output; see `export_run`.
      format: a format without adapters; see `export_run`.
      settings: fields of `T5Config` that replace the values that the checkpoint states.
      tokenizer: tokenizer to write beside a Hugging Face model; see `export_run`.

    Raises:
      UserError: the backbone cannot be read, or cannot be written in this format.
    """
    if format in ("t5x_adapters", "peft_poly", "peft_lora"):
        raise UserError(f"--format={format} is for adapters; give the --run that has them")
    _check_output(output, format)
    opened = open_backbone(backbone)
    config = dataclasses.replace(T5Config.of_checkpoint(opened.stated_fields(), backbone), **(settings or {}))
    check_tree(t5_parameter_shapes(config), opened.tensors, backbone)
    _write(output, format, opened.tensors, config, _step(opened.path))
    if format == "hugging_face":
        _add_tokenizer(output, backbone, config, tokenizer)


def _write_peft(run: str, output: str, format: Format, experiment: Experiment, task: str | None) -> None:
    weights = open_run(run, experiment)
    if weights.adapters is None:
        raise UserError(f"{run} has no adapters to export; use --format=backbone, t5x or hugging_face")
    if format == "peft_lora":
        write_peft_lora(output, weights, weights.adapters, task_id(weights.table, task))
    elif task is not None:
        raise UserError(f"--task={task}: peft_poly holds all tasks; one task's mix is --format=peft_lora")
    else:
        write_peft_poly(output, weights, weights.adapters)


def _write_t5x_adapters(run: str, output: str, experiment: Experiment, task: str | None) -> None:
    if task is not None:
        raise UserError(f"--task={task}: t5x_adapters holds all tasks; one merged into a T5 is --format=t5x")
    weights = open_run(run, experiment)
    if weights.adapters is None:
        raise UserError(f"{run} has no adapters to export; use --format=t5x")
    tensors = {**weights.backbone, **of_tree(weights.skills)}
    with byte_progress("exporting", total_bytes(tensors.values())) as advance:
        write_t5x(output, max(weights.number, 1), tensors, advance)
    write_description(output, experiment, weights.table)


def _without_adapters(run: str, weights: OpenRun, format: Format, task: str | None) -> Tensors:
    """Return a T5 without adapters: the run's own backbone, or one with a task's adapters merged into it."""
    if weights.adapters is None:
        if task is not None:
            raise UserError(f"--task={task}: {run} has no adapters that differ by task; omit --task")
        return weights.backbone
    if format == "backbone" and task is None:
        return weights.backbone
    return merged(weights, weights.adapters, task_id(weights.table, task))


def _write(output: str, format: Format, tensors: Tensors, config: T5Config, step: int) -> None:
    writers: dict[str, Callable[[Advance], object]] = {
        "t5x": lambda advance: write_t5x(output, step, tensors, advance),
        "hugging_face": lambda advance: write_hugging_face(output, tensors, config, advance),
        "backbone": lambda advance: (
            single_file if output.endswith(".safetensors") else backbone_folder
        ).write(output, tensors, dataclasses.asdict(config), advance),
    }
    with byte_progress("exporting", total_bytes(tensors.values())) as advance:
        writers[format](advance)


def _check_output(output: str, format: Format) -> None:
    place = epath.Path(output)
    check_output_file(place)
    if format == "backbone" and place.suffix not in ("", ".safetensors"):
        raise UserError(
            f"--output={output} must end in .safetensors, or be a folder: a name without a suffix"
        )
    if format not in ("t5x", "t5x_adapters") and "://" in output:
        raise UserError(
            f"--output={output}: only --format=t5x and t5x_adapters write to buckets; give a local path"
        )
    if format not in ("t5x", "t5x_adapters"):
        # A folder of T5X may hold checkpoints of many steps.
        check_new(output)


def _add_tokenizer(output: str, backbone: str | None, config: T5Config, other: Tokenizer | None) -> None:
    """Write the backbone's vocabulary, or else the other one, beside an exported model."""
    folder, found = pathlib.Path(output), None
    if backbone and "://" not in backbone:
        place = pathlib.Path(backbone)
        found = find_tokenizer(place, config.vocab_size)
        if place.is_dir() and copy_tokenizer(place, folder):
            return
    found = found or other
    if found is None:
        print(f"{output} has no tokenizer: none is beside the backbone or bound", file=sys.stderr)
    else:
        write_tokenizer(folder, found)


def _step(path: epath.Path) -> int:
    """Return the step in a T5X checkpoint's name, from which a schedule goes on; 1 for other names."""
    step = path.name.removeprefix("checkpoint_")
    return int(step) if path.name.startswith("checkpoint_") and step.isdigit() and int(step) else 1
