"""How each subject of the fuzz test is read: the arguments of a command, or a Python function."""

import functools
import pathlib
import shutil
from collections.abc import Callable

Reading = list[str] | Callable[[], object]
RESUME = (
    "--gin_file=recipes/skillbench/mhr.gin",
    "--gin.Adapters.sites='encoder/mlp/wo'",
    "--gin.train.steps=2",
    "--gin.Data.batch_size=8",
)
_NAMES = "names.json"
TASKS = ("ant", "bee", "cat")


def _resume(folder: pathlib.Path, file: str) -> Reading:
    return ["train", *RESUME, f"--output_dir={folder}"]


def _out(folder: pathlib.Path) -> str:
    place = folder.parent / "out"
    shutil.rmtree(place, ignore_errors=True)
    for path in place.parent.glob("out.*"):
        path.unlink()
    return str(place)


def _export(folder: pathlib.Path, file: str) -> Reading:
    return ["export", f"--run={folder}", "--format=peft_poly", f"--output={_out(folder)}"]


def _load(folder: pathlib.Path, file: str) -> Reading:
    import poly_jax

    return functools.partial(poly_jax.load, folder)


def _export_backbone(folder: pathlib.Path, file: str) -> Reading:
    # The file itself, or the folder that contains it.
    backbone = folder / pathlib.PurePath(file).parts[0]
    return ["export", f"--backbone={backbone}", "--format=t5x", f"--output={_out(folder)}"]


def _import_backbone(folder: pathlib.Path, file: str) -> Reading:
    return ["import", f"--from={folder / 'model'}", f"--output={_out(folder)}.safetensors"]


def _import_adapter(folder: pathlib.Path, file: str) -> Reading:
    adapter = folder / ("adapter" if (folder / "adapter").is_dir() else "adapter.safetensors")
    words = ["import", f"--from={adapter}", f"--backbone={folder / 'model'}", f"--output={_out(folder)}"]
    return [*words, f"--tasks={folder / _NAMES}"] if file == _NAMES else words


def _tokenizer(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from poly_jax.interface.vocabulary import beside
        from poly_jax.model.config import T5Config

        vocabulary = beside(str(folder / "model"), T5Config(vocab_size=128))
        if vocabulary is not None:
            vocabulary.encode("a b")

    return read


def _natural_instructions(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from etils import epath

        from poly_jax.tasks.super_natural_instructions.reading import read_names, read_task
        from poly_jax.tasks.super_natural_instructions.source import TaskFileSource

        place = epath.Path(folder)
        for name in read_names(place / "splits" / "train_tasks.txt"):
            path = place / "tasks" / f"{name}.json"
            read_task(path)
            source = TaskFileSource(path, lambda instances: {"train": instances}, 2)
            list(source.get_dataset("train"))

    return read


def _t0(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from etils import epath

        from poly_jax.tasks.t0_few_shot.reading import show_examples
        from poly_jax.tasks.t0_few_shot.templates import read_templates

        templates = read_templates(epath.Path(folder / "templates.yaml"))
        show_examples(epath.Path(folder / "train.jsonl"), templates, lambda place: [0])

    return read


def _crossfit(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from etils import epath

        from poly_jax.tasks.crossfit.partitions import read_partition
        from poly_jax.tasks.crossfit.sample_files import find_splits
        from poly_jax.tasks.crossfit.source import SampleSource

        place = epath.Path(folder)
        for task in read_partition(place, "made").train:
            splits = find_splits(place, task)
            if splits:
                list(SampleSource(task, splits, check_choices=True).get_dataset("train"))

    return read


def _from_files(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from etils import epath

        from poly_jax.tasks.from_files.examples import Columns
        from poly_jax.tasks.from_files.folders import find_tasks
        from poly_jax.tasks.from_files.source import FilesSource

        for task, splits in find_tasks(epath.Path(folder)).items():
            source = FilesSource(task, splits, Columns("review", "label"), {}, 0, 0.0)
            for split in splits:
                list(source.get_dataset(split))

    return read


def _table(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from poly_jax.files.weight_table import read_weight_table

        read_weight_table(str(folder / file), TASKS)

    return read


def _grouping(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from poly_jax.analysis.reference import read_grouping

        read_grouping(str(folder / file), TASKS)

    return read


def _texts(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from poly_jax.evaluation.texts import read_records

        read_records(str(folder / file))

    return read


def _gin(folder: pathlib.Path, file: str) -> Reading:
    def read() -> None:
        from poly_jax.configuration import Configuration

        Configuration((str(folder / "run.gin"),)).load()

    return read


READERS: dict[str, Callable[[pathlib.Path, str], Reading]] = {
    "resume": _resume,
    "export": _export,
    "load": _load,
    "export_backbone": _export_backbone,
    "import_backbone": _import_backbone,
    "import_adapter": _import_adapter,
    "tokenizer": _tokenizer,
    "natural_instructions": _natural_instructions,
    "t0": _t0,
    "crossfit": _crossfit,
    "from_files": _from_files,
    "table": _table,
    "grouping": _grouping,
    "texts": _texts,
    "gin": _gin,
}
