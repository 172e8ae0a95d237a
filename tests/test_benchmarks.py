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
    shape = ("--model=t5_1_1_tiny", "--batch_size=4", "--inputs=16", "--targets=8")
    done = _run("train_step", *shape, "--rounds=1", "--methods", "LoRA", "MHR", f"--json={file}")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    header, alone = ["program", "---"], "T5 alone"
    assert rows[2:] == ["LoRA", "MHR", *header, alone, "LoRA", "MHR"]
    line, beside = map(json.loads, file.read_text().splitlines())
    assert set(beside["figures"]["step_s"]) == {alone, "LoRA", "MHR"}
    for method, figures in line["figures"].items():
        assert set(figures["step_s"]) >= {alone, method}
        assert all(seconds > 0 for seconds in figures["step_s"].values())


def test_compilation_is_measured_beside_the_first_method():
    shape = ("--model=t5_1_1_tiny", "--batch_size=4", "--inputs=16", "--targets=8")
    done = _run("compilation", *shape, "--rounds=1", "--methods", "LoRA", "Poly")
    assert done.returncode == 0, done.stderr
    lora, poly = (
        [cell.strip() for cell in line.split("|")[1:4]] for line in done.stdout.splitlines()[-3:] if line
    )
    assert (lora[0], lora[2], poly[0]) == ("LoRA", "1.00", "Poly")
    lines = [int(cells[1].replace(",", "")) for cells in (lora, poly)]
    assert lines[1] > lines[0] > 1000
    assert poly[2] == f"{lines[1] / lines[0]:.2f}"


def test_decoding_is_measured_greedily_and_with_beams():
    done = _run(
        "decoding", "--model=t5_1_1_tiny", "--batch_size=4", "--inputs=16", "--length=4", "--rounds=1"
    )
    assert done.returncode == 0, done.stderr
    assert "Decoding, greedy" in done.stdout
    assert "Decoding, 4 beams" in done.stdout
