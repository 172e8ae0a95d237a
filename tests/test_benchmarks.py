"""The scripts of benchmarks/ run and say what they measure; no test asserts a time."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("measuring", "peft_programs", "programs", "settings")
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in MODULES)


def _run(script, *flags):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), *flags], capture_output=True, text=True
    )


# One process for all, because most of its time goes into importing JAX and TensorFlow.
_EXPLAIN = """
import contextlib, io, json, runpy, sys, traceback
folder, *scripts = sys.argv[1:]
sys.path.insert(0, folder)
found = {}
for script in scripts:
    sys.argv, text, code = [f"{folder}/{script}.py", "--help"], io.StringIO(), 0
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            code = traceback.format_exc()
    found[script] = code, text.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def explained():
    """The exit code of each script, or what it raised, and its output, where it is asked for help."""
    done = subprocess.run(
        [sys.executable, "-c", _EXPLAIN, str(BENCHMARKS), *SCRIPTS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_explains_itself(script, explained):
    code, text = explained[script]
    assert code == 0
    assert text.startswith("usage")


def test_a_benchmark_prints_a_table_and_adds_the_same_figures_as_json(tmp_path):
    file = tmp_path / "figures.jsonl"
    shape = ("--model=t5_1_1_tiny", "--batch_size=2", "--inputs=8", "--targets=4")
    done = _run("train_step", *shape, "--rounds=1", "--methods", "LoRA", "MHR", f"--json={file}")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["LoRA", "MHR"]
    (line,) = file.read_text().splitlines()
    for method, figures in json.loads(line)["figures"].items():
        assert set(figures["step_s"]) >= {"T5 alone", method}
        assert all(seconds > 0 for seconds in figures["step_s"].values())


def test_decoding_is_measured_greedily_and_with_beams():
    done = _run("decoding", "--model=t5_1_1_tiny", "--batch_size=2", "--inputs=8", "--length=4", "--rounds=1")
    assert done.returncode == 0, done.stderr
    assert "Decoding, greedy" in done.stdout
    assert "Decoding, 4 beams" in done.stdout
