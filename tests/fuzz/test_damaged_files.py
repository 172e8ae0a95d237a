"""For any damage to a file, its reader ends soon: with exit code 0, or with one line that says what is wrong.

By default a sample is run. `POLY_JAX_FUZZ=whole python -m pytest tests/fuzz` runs all (about an hour).
"""

import itertools
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
from mutations import kinds_for
from readers import RESUME
from subjects import Subject, make_subjects

from poly_jax import cli

pytestmark = [pytest.mark.slow]

_SAMPLE = 24
_SEED = 0
_WORKER = pathlib.Path(__file__).parent / "worker.py"

Case = dict[str, str]


def cases_of(subjects: list[Subject]) -> list[Case]:
    """Every kind of damage to every file of every subject, and each subject undamaged."""
    cases = []
    for subject in subjects:
        for reader in subject.readers:
            common = {"subject": str(subject.folder), "reader": reader, "seed": str(_SEED)}
            cases.append({**common, "file": subject.damaged()[0], "kind": ""})
            for file in subject.damaged():
                kinds = kinds_for(subject.folder / file)
                chosen = random.Random(f"{_SEED} {reader} {file}").sample(kinds, len(kinds))
                cases += [{**common, "file": file, "kind": kind} for kind in chosen[: subject.most_kinds]]
    return cases


def sample_of(cases: list[tuple[int, Case]]) -> list[tuple[int, Case]]:
    """Take equally many cases for each reader, because those that read whole runs take longest."""
    groups: dict[str, list[tuple[int, Case]]] = {}
    for number, case in random.Random(_SEED).sample(cases, len(cases)):
        groups.setdefault(case["reader"], []).append((number, case))
    turns = [case for turn in itertools.zip_longest(*groups.values()) for case in turn if case]
    return turns[:_SAMPLE]


def run(cases: list[tuple[int, Case]], folder: pathlib.Path) -> dict[int, dict]:
    """Read each case and return how it ended. A process that dies is restarted after the case it was at."""
    ended: dict[int, dict] = {}
    results, todo = folder / "results.jsonl", folder / "cases.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    left = list(cases)
    while left:
        results.write_text("")
        todo.write_text(json.dumps(left))
        command = [sys.executable, str(_WORKER), str(todo), str(results)]
        process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        ended |= {line["ended"]: line for line in lines if "ended" in line}
        begun = [line["begun"] for line in lines if "begun" in line]
        assert begun, process.stderr
        if begun[-1] not in ended:
            how = f"the process died with {process.returncode}: {process.stderr[-3000:]}"
            ended[begun[-1]] = {"code": -1, "errors": "", "fault": how}
        left = [case for case in cases if case[0] not in ended]
    return ended


@pytest.fixture
def trained_run(tmp_path):
    """A finished run of two steps: calling its training command again changes nothing."""
    folder = tmp_path / "run"
    assert cli.main(["train", *RESUME, f"--output_dir={folder}"]) == 0
    return folder


def test_a_damaged_file_ends_in_one_line_or_is_read(trained_run, tmp_path):
    root = tmp_path / "subjects"
    root.mkdir()
    cases = list(enumerate(cases_of(make_subjects(root, trained_run))))
    assert len(cases) > 150
    undamaged = [case for case in cases if not case[1]["kind"]]
    if os.environ.get("POLY_JAX_FUZZ") != "whole":
        cases = [*undamaged, *sample_of([case for case in cases if case[1]["kind"]])]
    ended = run(cases, tmp_path)
    described = {number: f"{case['reader']} of {case['file']}, {case['kind']}" for number, case in cases}
    faults = [f"{described[number]}: {end['fault']}" for number, end in ended.items() if end["fault"]]
    # The check of damaged files is meaningful only if the readers accept the undamaged ones.
    faults += [f"{described[n]}: {ended[n]['errors']}" for n, _ in undamaged if ended[n]["code"] != 0]
    assert not faults, f"{len(faults)} of {len(cases)} cases:\n" + "\n\n".join(faults)
    assert any(end["code"] == 1 for end in ended.values())
