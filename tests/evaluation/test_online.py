"""A run that is evaluated while it trains logs what `poly-jax eval` would find, and trains the same."""

import json
import pathlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from poly_jax import configuration
from poly_jax.errors import UserError
from poly_jax.evaluation.evaluate import evaluate
from poly_jax.evaluation.mixture_evaluation import MixtureEvaluation
from poly_jax.stopping import Stopped
from poly_jax.training import loop
from poly_jax.training.progress import Progress
from poly_jax.training.retention import Score
from poly_jax.training.saved_steps import saved_scores, saved_steps
from poly_jax.training.train import train

EVERY_SECOND = ("train.eval_every = 2", "OnlineEvaluation.split = 'test'", "train.report_every = 1")
STRANGE = ("OnlineEvaluation.mixture = 'evaluation_strange'", "OnlineEvaluation.zero_shot = True")


def trains(run, folder, *bindings):
    loaded = configuration.load([configuration.run_config(run.folder)], list(bindings))
    state = train(**loaded.arguments("train", output_dir=str(folder)))
    return jax.tree.map(np.asarray, state.trained)


def lines(folder):
    found = [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(
        losses=[(line["step"], line["loss"]) for line in found if "loss" in line],
        evaluations={line["step"]: line for line in found if any("eval/" in name for name in line)},
    )


def named(results):
    return {
        f"eval/{task}/{name}": value for task, values in results.items() for name, value in values.items()
    }


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory):
    """The run without evaluations."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return SimpleNamespace(folder=folder, trained=trains(trained, folder, "train.report_every = 1"))


def test_it_logs_what_eval_finds_and_trains_bit_for_bit_the_same(run, plain, tmp_path, capsys):
    same = trains(run, tmp_path / "online", *EVERY_SECOND)
    jax.tree.map(np.testing.assert_array_equal, same, plain.trained)
    found = lines(tmp_path / "online")
    assert found.losses == lines(plain.folder).losses
    # After every second step, and after the last.
    assert list(found.evaluations) == [2, 3]
    wanted = evaluate(str(plain.folder), run.experiment, output_dir=str(tmp_path / "eval"))
    assert found.evaluations[3] == pytest.approx({"step": 3, **named(wanted)})
    assert found.evaluations[2] != found.evaluations[3]
    assert "evaluated evaluation_all, test: mean over tasks overlap" in capsys.readouterr().err


def test_tasks_that_are_not_trained_on_are_evaluated_with_the_average_of_the_skills(run, plain, tmp_path):
    trains(run, tmp_path / "online", *EVERY_SECOND, *STRANGE)
    wanted = evaluate(
        str(plain.folder),
        run.experiment,
        mixture="evaluation_strange",
        zero_shot=True,
        output_dir=str(tmp_path / "eval"),
    )
    assert "evaluation_stranger" in wanted
    assert lines(tmp_path / "online").evaluations[3] == pytest.approx({"step": 3, **named(wanted)})


def test_a_run_that_was_stopped_has_the_same_evaluations_as_one_that_was_not(run, tmp_path):
    bindings = (*EVERY_SECOND, "train.eval_every = 1", "train.save_every = 1")
    whole = trains(run, tmp_path / "whole", *bindings)
    report = Progress.report

    def stops(self, step, metrics):
        if step == 3:
            raise KeyboardInterrupt
        return report(self, step, metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "report", stops)
        with pytest.raises(KeyboardInterrupt):
            trains(run, tmp_path / "stopped", *bindings)
    resumed = trains(run, tmp_path / "stopped", *bindings)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_evaluation_that_a_signal_ends_is_made_when_the_run_goes_on(run, plain, tmp_path, number):
    bindings = (*EVERY_SECOND, "train.eval_every = 1", "train.keep_best = 'mean/overlap'")
    bindings += ("train.save_every = 1000", "train.keep_checkpoints = 3")
    evaluations, evaluate_once = [], MixtureEvaluation.__call__

    def counted(self, *arguments, **named):
        evaluations.append(True)
        return evaluate_once(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixtureEvaluation, "__call__", counted)
        # The signal comes during the first batch of this evaluation.
        patch.setattr(loop, "requested", lambda: len(evaluations) == number)
        with pytest.raises(Stopped, match=f"step {number} of 3 is saved"):
            trains(run, tmp_path / "ended", *bindings)
    assert list(lines(tmp_path / "ended").evaluations) == list(range(1, number))
    assert max(saved_steps(tmp_path / "ended")) == number
    resumed = trains(run, tmp_path / "ended", *bindings)
    jax.tree.map(np.testing.assert_array_equal, resumed, plain.trained)
    found = lines(tmp_path / "ended")
    assert found.losses == lines(plain.folder).losses
    assert list(found.evaluations) == [1, 2, 3]
    # The checkpoint that was saved without the metric has it now.
    values = {step: line["eval/mean/overlap"] for step, line in found.evaluations.items()}
    assert saved_scores(tmp_path / "ended")[number] == Score("mean/overlap", values[number])


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["train.eval_every = -1"], "train.eval_every is -1; it must be at least 1"),
        (["OnlineEvaluation.batch_size = 0"], "OnlineEvaluation.batch_size is 0; it must be at least 1"),
        (["OnlineEvaluation.split = 'valid'"], "no task of 'evaluation_all' has a split 'valid'"),
        (["OnlineEvaluation.mixture = 'evaluation_al'"], "no seqio mixture or task is .*did you mean"),
        (
            ["OnlineEvaluation.mixture = 'evaluation_strange'"],
            r"1 of its 2 tasks are not trained on \(.*stranger.*\); bind OnlineEvaluation.zero_shot = True",
        ),
    ],
)
def test_a_mistake_in_the_settings_ends_the_run_before_its_folder_is_made(run, tmp_path, bindings, message):
    with pytest.raises(UserError, match=message):
        trains(run, tmp_path / "run", *EVERY_SECOND, *bindings)
    assert not (tmp_path / "run").exists()


def test_the_step_with_the_best_metric_is_kept_and_named(run, tmp_path, capsys):
    bindings = ("train.eval_every = 1", "train.save_every = 1000", "train.keep_best = 'mean/overlap'")
    bindings += ("train.keep_checkpoints = 1", "OnlineEvaluation.split = 'test'")
    trains(run, tmp_path / "best", *bindings)
    found = {step: line["eval/mean/overlap"] for step, line in lines(tmp_path / "best").evaluations.items()}
    assert len(found) == 3
    best = min(step for step, value in found.items() if value == max(found.values()))
    assert {path.name for path in (tmp_path / "best" / "checkpoints").iterdir()} == {str(best), "3"}
    said = f"best checkpoint: {tmp_path / 'best' / 'checkpoints' / str(best)} (mean/overlap"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mean/overlaps", "did you mean 'mean/overlap'"),
        ("evaluation_c/overlap", "did you mean 'evaluation_[ab]/overlap'"),
        # The task is known, and has no example of the split.
        ("evaluation_no_test/overlap", "did you mean 'evaluation_"),
    ],
)
def test_a_misspelled_metric_ends_the_run_before_its_folder_is_made(run, tmp_path, name, advice):
    with pytest.raises(UserError, match=rf"keep_best is '{name}', and .* no such metric; {advice}"):
        trains(run, tmp_path / "run", *EVERY_SECOND, f"train.keep_best = '{name}'")
    assert not (tmp_path / "run").exists()


def test_a_metric_whose_name_is_not_known_before_ends_the_run_with_its_state_saved(
    run, tmp_path, monkeypatch
):
    # As where a metric cannot be computed from the targets.
    monkeypatch.setattr(MixtureEvaluation, "names", lambda self: None)
    bindings = (*EVERY_SECOND, "train.save_every = 1000", "train.keep_best = 'mean/overlaps'")
    with pytest.raises(UserError, match=r"keep_best is 'mean/overlaps', .* did you mean 'mean/overlap'"):
        trains(run, tmp_path / "run", *bindings)
    # The setting may be mended, and the run goes on.
    trains(run, tmp_path / "run", *bindings[:-1], "train.keep_best = 'mean/overlap'")
    assert [step for step, _ in lines(tmp_path / "run").losses] == [1, 2, 3]


def test_a_task_without_the_training_split_is_named_as_not_trained_on(run, tmp_path, capsys):
    trains(run, tmp_path / "whole", "train.steps = 1")
    assert "not trained on" not in capsys.readouterr().err
    trains(run, tmp_path / "part", "train.steps = 1", "Data.mixture = 'evaluation_strange'")
    line = "not trained on, without a split 'train': evaluation_stranger\n"
    assert line in capsys.readouterr().err
