"""A program does not write into the folder of a run or of another program."""

import json

import pytest

from poly_jax.errors import UserError
from poly_jax.reporting import output_folder
from poly_jax.reporting.output_folder import check_output_file, check_output_folder

PROGRAMS = ("sweep", "reproduce", "demo", "routing", "eval")


def result(key):
    return json.dumps({"key": key, "result": {}}) + "\n"


FILES = {
    "sweep": ("results.jsonl", result({"method": "m", "task": "t", "seed": 0, "setup": "0"})),
    "reproduce": ("results.jsonl", result({"stage": "seen", "method": "MHR", "seed": 0})),
    "demo": ("results.json", "[]"),
    "routing": ("routing.json", "{}"),
    "eval": ("metrics.json", "{}"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_folder_of_a_run_is_refused_and_so_are_its_checkpoints(tmp_path, program):
    run = tmp_path / "run"
    (run / "checkpoints" / "7").mkdir(parents=True)
    (run / "config.gin").write_text("")
    for folder in (run, run / "checkpoints", run / "checkpoints" / "7", run / "data" / "new"):
        with pytest.raises(UserError, match=rf"holds a training run; give .* such as {run / program}$"):
            check_output_folder(folder, program)
    check_output_folder(run / program, program)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("owner", PROGRAMS)
def test_a_program_continues_only_in_its_own_folder(tmp_path, program, owner):
    name, text = FILES[owner]
    (tmp_path / name).write_text(text)
    if program == owner:
        check_output_folder(tmp_path, program)
    else:
        with pytest.raises(UserError, match=f"holds the files of `poly-jax {owner}`"):
            check_output_folder(tmp_path, program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_without_results_may_be_used(tmp_path, program):
    check_output_folder(tmp_path / "new", program)
    check_output_folder(tmp_path, program)
    (tmp_path / "log.txt").write_text("a user's own file")
    # A results file whose first line was never finished belongs to no program yet.
    (tmp_path / "results.jsonl").write_text('{"key": {"met')
    check_output_folder(tmp_path, program)


def test_a_file_is_refused_as_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        check_output_folder(tmp_path / "file", "sweep")


@pytest.mark.parametrize(
    "own",
    [
        *("config.gin", "operative_config.gin", "metrics.jsonl", "events.out.tfevents.1.host"),
        *("checkpoints", "checkpoints/new.safetensors", "checkpoints/7/trained/new.txt", "data/7-host0.json"),
    ],
)
def test_a_file_of_a_run_is_not_overwritten(tmp_path, own):
    (tmp_path / "config.gin").write_text("")
    with pytest.raises(UserError, match=rf"among the files of the training run in {tmp_path}; give another"):
        check_output_file(tmp_path / own)


def test_other_files_in_a_run_and_the_same_names_elsewhere_may_be_written(tmp_path):
    check_output_file(tmp_path / "metrics.jsonl")
    check_output_file(tmp_path / "data" / "answers.txt")
    (tmp_path / "config.gin").write_text("")
    check_output_file(tmp_path / "answers.txt")
    check_output_file(tmp_path / "answers" / "metrics.jsonl")


def test_a_folder_that_cannot_be_made_or_written_is_refused(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    # The tests may run as root, to whom the system allows everything.
    monkeypatch.setattr(output_folder.os, "access", lambda path, mode: str(path) != str(closed))
    for folder in (closed, closed / "new" / "results"):
        with pytest.raises(
            UserError, match=rf"{folder} cannot be written, because {closed} does not allow it"
        ):
            check_output_folder(folder, "eval")
    check_output_folder(tmp_path / "open" / "new", "eval")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written, because .*file does not allow it"):
        check_output_folder(tmp_path / "file" / "results", "eval")
