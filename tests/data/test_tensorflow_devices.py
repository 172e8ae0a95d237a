"""TensorFlow leaves GPUs and TPUs to JAX, on a machine that seems to have one of each."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Python runs a module of this name whenever it starts, and so in each process of a command. TensorFlow then
# finds a GPU and a TPU, and a file gets a line with the devices that each process may use, when it first uses
# any.
SITE = """
import importlib.machinery, os, sys

NAME = "tensorflow.python.eager.context"

class Bindings:
    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        return getattr(self._real, name)

    def TF_ListPhysicalDevices(self):
        return [*self._real.TF_ListPhysicalDevices(), b"/physical_device:GPU:0", b"/physical_device:TPU:0"]

class Finder:
    def find_spec(self, name, path, target=None):
        if name != NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        executed = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (executed(module), change(module))
        return spec

def change(module):
    module.pywrap_tfe = Bindings(module.pywrap_tfe)
    initialized = module.Context.ensure_initialized

    def noted(self):
        if not self._initialized:
            kinds = " ".join(sorted(device.device_type for device in self.get_visible_devices()))
            with open(os.environ["USED_DEVICES"], "a") as file:
                file.write(kinds + "\\n")
        return initialized(self)

    module.Context.ensure_initialized = noted

sys.meta_path.insert(0, Finder())
"""
# A user's module, which computes with TensorFlow while it is imported.
MODULE = "import tensorflow as tf\n\none = tf.constant(1) + 1\n"
RECIPE = f"""
import my_tasks
include 'recipes/skillbench/mhr.gin'
Data.mixture = '{registered_name(benchmark().train[0].name)}'
train.steps = 1
Data.batch_size = 8
Adapters.sites = ('encoder/attention/query',)
"""


@pytest.fixture
def devices_used(tmp_path):
    """A function that runs Python with arguments, and returns the devices of each process that uses any."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "my_tasks.py").write_text(MODULE)
    (tmp_path / "my.gin").write_text(RECIPE)

    def run(*arguments):
        used = tmp_path / "used"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
            "USED_DEVICES": str(used),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return used.read_text().splitlines()

    return run


@pytest.mark.slow
def test_tensorflow_alone_would_use_both(devices_used):
    assert devices_used("-c", MODULE) == ["CPU GPU TPU"]


@pytest.mark.slow
def test_the_library_leaves_tensorflow_the_cpu(devices_used):
    assert devices_used("-c", f"import poly_jax.data.quiet\n{MODULE}") == ["CPU"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "least"),
    [
        (("train", "--gin_file=my.gin", "--output_dir=run"), 1),
        (("prepare", "--gin_file=my.gin", "--output_dir=cache", "--processes=2"), 2),
    ],
)
def test_no_process_of_a_command_gives_tensorflow_an_accelerator(devices_used, words, least):
    used = devices_used("-m", "poly_jax.cli", *words)
    assert set(used) == {"CPU"}
    assert len(used) >= least, "prepare starts processes of its own"


def test_only_one_module_imports_tensorflow_or_seqio_itself():
    found = set()
    for folder in ("poly_jax", "tasks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if {name.partition(".")[0] for name in names} & {"seqio", "tensorflow", "tensorflow_text"}:
                    found.add(path.relative_to(ROOT).as_posix())
    # For annotations only; and t5x's plug-in, whose programs have imported both by then.
    allowed = {"poly_jax/data/registry.py", "poly_jax/interop/t5x/data.py", "poly_jax/interop/t5x/model.py"}
    assert found - allowed == {"poly_jax/data/quiet.py"}
