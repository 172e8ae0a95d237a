"""Either name of a variant can be given on the command line, and the name that fits the run is stored."""

import pathlib
import subprocess
import sys

import pytest

from poly_jax import cli
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name

pytestmark = pytest.mark.usefixtures("own_folder")

TASK = registered_name(benchmark().heldout[0].name)


@pytest.mark.slow
def test_a_run_started_with_one_name_is_resumed_with_the_other(short_runs, capsys):
    words = ["adapt", f"--run={short_runs['mhr']}", f"--task={TASK}", "--output_dir=out"]
    assert cli.main([*words, "--variant=poly-mu", "--gin.adapt.steps=1"]) == 0
    assert "mhr-mu" in capsys.readouterr().out
    begun = pathlib.Path("out/config.gin").read_text()
    assert "AdaptedFrom.variant = 'mhr-mu'" in begun
    for name in ("mhr-mu", "poly-mu"):
        assert cli.main([*words, f"--variant={name}", "--gin.adapt.steps=1"]) == 0
        assert pathlib.Path("out/config.gin").read_text() == begun


def test_the_names_of_variants_are_read_without_importing_jax():
    heavy = ("jax", "flax", "scipy")
    code = f"import sys, poly_jax.transfer.variants; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
