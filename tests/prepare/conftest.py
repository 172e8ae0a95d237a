"""Small tasks of JSON lines, as a module that a gin file imports, and runs of `poly-jax prepare` on them."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from poly_jax import cli
from poly_jax.data.quiet import seqio

MODULE = '''
"""Tasks of the files of a folder: `<name>_<split>.jsonl`, one JSON object a line."""

import json
import pathlib

import seqio
import tensorflow as tf

from poly_jax.data.broken_rows import BrokenRow
from poly_jax.prepare import rows

FOLDER = pathlib.Path({folder!r})
VOCABULARY = seqio.ByteVocabulary()
ROWS_PER_SHARD = {rows_per_shard}
if ROWS_PER_SHARD:
    rows.ROWS_PER_SHARD = ROWS_PER_SHARD


class Lines(seqio.DataSource):
    """Rows of JSON lines; a line that is not JSON is dropped."""

    def __init__(self, files):
        super().__init__(splits=tuple(files))
        self._files = files
        self._broken = {{}}

    supports_arbitrary_sharding = False

    def list_shards(self, split):
        return [str(self._files[split])]

    def num_input_examples(self, split):
        return len(self._read(split))

    def broken_rows(self, split):
        return tuple(self._broken.get(split, ()))

    def _read(self, split):
        found, self._broken[split] = [], []
        for number, line in enumerate(self._files[split].read_text().splitlines(), 1):
            try:
                found.append(json.loads(line))
            except ValueError:
                self._broken[split].append(BrokenRow(str(self._files[split]), number, "is not JSON <&>"))
        return found

    def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, **_):
        rows = self._read(split)
        return tf.data.Dataset.from_tensor_slices(
            {{name: tf.constant([row[name] for row in rows], tf.string) for name in ("inputs", "targets")}}
        )


def register():
    feature = seqio.Feature(VOCABULARY, add_eos=True)
    paths = sorted(FOLDER.glob("*.jsonl"))
    names = sorted({{path.stem.rpartition("_")[0] for path in paths}})
    for name in names:
        files = {{path.stem.rpartition("_")[2]: path for path in paths if path.stem.startswith(name + "_")}}
        seqio.TaskRegistry.add(
            name,
            source=Lines(files),
            preprocessors=[
                seqio.CacheDatasetPlaceholder(),
                seqio.preprocessors.tokenize,
                seqio.preprocessors.append_eos,
            ],
            output_features={{"inputs": feature, "targets": feature}},
        )
    seqio.MixtureRegistry.add("prepared", names, default_rate=1.0)


register()
'''
GIN = """
import {module}
Data.mixture = 'prepared'
Data.inputs_length = 12
Data.targets_length = 4
"""
LOCK = ".prepare.lock"


class Project:
    """A folder with raw files, a module that registers their tasks, and a gin file."""

    def __init__(self, folder: pathlib.Path, module: str) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.raw.mkdir()
        self._module = module

    def add(self, task: str, n_rows: int, split: str = "train") -> pathlib.Path:
        """Write a file of rows whose inputs have 10 to 14 bytes, and whose targets have 1 to 3."""
        lines = [
            json.dumps({"inputs": "x" * (10 + row % 5), "targets": str(row % 1000)}) for row in range(n_rows)
        ]
        path = self.raw / f"{task}_{split}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    def write_module(self, rows_per_shard: int = 0, change: tuple[str, str] = ("", "")) -> None:
        """Write the module, with a change of its text, and the gin file."""
        text = MODULE.format(folder=str(self.raw), rows_per_shard=rows_per_shard).replace(*change)
        (self.folder / f"{self._module}.py").write_text(text)
        (self.folder / "mine.gin").write_text(GIN.format(module=self._module))

    def start(self, output: str, processes: int) -> subprocess.Popen:
        """Start the command line in a process of its own."""
        root = pathlib.Path(__file__).resolve().parents[2]
        code = "import sys; from poly_jax.cli import main; sys.exit(main())"
        flags = ["--gin_file=mine.gin", f"--output_dir={output}", f"--processes={processes}"]
        return subprocess.Popen(
            [sys.executable, "-c", code, "prepare", *flags],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def prepare(self, output: str = "cache", processes: int = 1, *flags: str) -> int:
        """Run the command line in this process, with the tasks of the module as it is now."""
        self.forget()
        words = ["prepare", "--gin_file=mine.gin", f"--output_dir={output}", f"--processes={processes}"]
        return cli.main([*words, *flags])

    def contents(self, output: str = "cache") -> dict[str, bytes]:
        """Every file of a cache, but for the lock, by its path."""
        folder = self.folder / output
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK)
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    def report(self, output: str = "cache") -> dict:
        """The report of a cache as JSON."""
        return json.loads((self.folder / output / "prepare.json").read_text())

    def forget(self) -> None:
        """Remove the project's tasks from seqio's registries, and its caches."""
        sys.modules.pop(self._module, None)
        if "prepared" in seqio.MixtureRegistry.names():
            for task in seqio.MixtureRegistry.get("prepared").tasks:
                seqio.TaskRegistry.remove(task.name)
            seqio.MixtureRegistry.remove("prepared")
        seqio.set_global_cache_dirs([])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the current folder, whose tasks are forgotten at the end of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Project(tmp_path, "prepared_tasks")
    made.write_module()
    yield made
    made.forget()
