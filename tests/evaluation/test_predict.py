"""Predictions and scores equal the model's own, row by row, for any batch size."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor, rows_for
from poly_jax.model.generate import Decoding, generate

LENGTH, MOST = 12, 6


@pytest.fixture
def rows(run):
    """Inputs, targets and task ids of seven rows of tasks 0 and 1 in turn."""
    draw = np.random.default_rng(0)
    inputs, targets = draw.integers(3, 259, (7, LENGTH)), draw.integers(3, 259, (7, MOST))
    inputs[2, 5:], targets[3, 2:] = 0, 0
    return inputs.astype(np.int32), targets.astype(np.int32), np.arange(7, dtype=np.int32) % 2


def predictor(run, batch_size, **decoding):
    """Make each predictor, and so compile it, once for all tests."""
    key = (int(batch_size), *decoding.items())
    if key not in run.predictors:
        settings = Decoding(max_length=MOST, **decoding)
        run.predictors[key] = Predictor(run.restored, settings, run.mesh, batch_size)
    return run.predictors[key]


def log_probs(run, inputs, decoder_inputs, task_ids):
    apply = jax.jit(lambda *arrays: run.restored.model.apply({"params": run.restored.parameters}, *arrays))
    logits = np.asarray(apply(inputs, decoder_inputs, task_ids), np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_each_predicted_token_is_the_most_likely_one(run, rows):
    inputs, _, task_ids = rows
    expected, score = np.zeros((7, MOST + 1), np.int32), np.zeros(7)
    ended = np.zeros(7, bool)
    for place in range(MOST):
        step = log_probs(run, inputs, expected[:, :MOST], task_ids)[:, place]
        best = step.argmax(-1)
        score += np.where(ended, 0, step.max(-1))
        expected[:, place + 1] = np.where(ended, 0, best)
        ended |= best == 1
    got = predictor(run, 7).predict(inputs, task_ids)
    np.testing.assert_array_equal(got.tokens, expected[:, 1:])
    np.testing.assert_allclose(got.scores, score, rtol=1e-5)


def test_scores_are_the_summed_log_probabilities_of_the_targets(run, rows):
    inputs, targets, task_ids = rows
    shifted = np.concatenate([np.zeros((7, 1), np.int32), targets[:, :-1]], axis=1)
    all_scores = np.take_along_axis(log_probs(run, inputs, shifted, task_ids), targets[..., None], -1)[..., 0]
    got = predictor(run, 7).score(inputs, targets, task_ids)
    np.testing.assert_allclose(got, (all_scores * (targets > 0)).sum(-1), rtol=1e-5)


def test_the_score_of_a_choice_is_its_score_as_a_target(run, rows):
    inputs, targets, task_ids = rows
    choices = np.stack([targets, np.roll(targets, 1, axis=0), 0 * targets], axis=1)
    got = predictor(run, 4).score_choices(inputs, choices, task_ids)
    for place in range(2):
        expected = predictor(run, 7).score(inputs, choices[:, place], task_ids)
        np.testing.assert_allclose(got[:, place], expected, rtol=1e-5)
    assert (got[:, 2] == -np.inf).all()
    with pytest.raises(UserError, match="task id"):
        predictor(run, 4).score_choices(inputs, choices, task_ids + 100)


def test_rows_of_two_tasks_in_one_batch_use_their_own_adapters(run, rows):
    inputs, targets, task_ids = rows
    together = predictor(run, 7)
    mixed, scores = together.predict(inputs, task_ids), together.score(inputs, targets, task_ids)
    for task in (0, 1):
        mine = task_ids == task
        alone = predictor(run, mine.sum())
        np.testing.assert_array_equal(alone.predict(inputs[mine], task_ids[mine]).tokens, mixed.tokens[mine])
        got = alone.score(inputs[mine], targets[mine], task_ids[mine])
        np.testing.assert_allclose(got, scores[mine], rtol=1e-5)
    other = together.score(inputs, targets, 1 - task_ids)
    assert np.abs(other - scores).min() > 0.01
    assert (together.predict(inputs, 1 - task_ids).tokens != mixed.tokens).any()


def test_the_model_gets_one_task_where_all_examples_have_the_same(run, rows):
    """Their mix is then computed and read once; `tests/model/test_one_task.py` looks at the program."""
    inputs, targets, task_ids = rows
    model, seen = Predictor(run.restored, Decoding(max_length=2), run.mesh, 4), []

    def score(parameters, inputs, targets, tasks):
        seen.append(np.asarray(tasks).tolist())
        return np.zeros(4, np.float32)

    model._score = score
    model.score(inputs, targets, 0 * task_ids + 1)
    model.score(inputs, targets, task_ids)
    assert seen == [1, 1, [0, 1, 0, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_the_batch_size_changes_nothing(run, rows, batch_size):
    inputs, targets, task_ids = rows
    expected, told = predictor(run, 7), []
    got = predictor(run, batch_size)
    predictions, wanted = got.predict(inputs, task_ids, told.append), expected.predict(inputs, task_ids)
    np.testing.assert_array_equal(predictions.tokens, wanted.tokens)
    np.testing.assert_allclose(predictions.scores, wanted.scores, rtol=1e-5)
    scores = got.score(inputs, targets, task_ids)
    np.testing.assert_allclose(scores, expected.score(inputs, targets, task_ids), rtol=1e-5)
    assert sum(told) == 7


def test_padding_that_no_example_needs_changes_nothing_and_compiles_nothing(run, rows):
    inputs, targets, task_ids = rows
    expected = predictor(run, 7)
    wanted = expected.predict(inputs, task_ids), expected.score(inputs, targets, task_ids)
    model = Predictor(run.restored, Decoding(max_length=MOST), run.mesh, 7)
    for width in (64, 128, 512):
        wide = np.pad(inputs, ((0, 0), (0, width - LENGTH)))
        far = np.pad(targets, ((0, 0), (0, width // 4 - MOST)))
        got = model.predict(wide, task_ids), model.score(wide, far, task_ids)
        np.testing.assert_array_equal(got[0].tokens, wanted[0].tokens)
        np.testing.assert_allclose(got[0].scores, wanted[0].scores, rtol=1e-5)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5)
    assert model._decode._cache_size() == model._score._cache_size() == 1


def test_examples_of_one_width_are_batched_together_and_keep_their_places(run, rows):
    inputs, targets, task_ids = rows
    wide, far = np.pad(inputs, ((0, 0), (0, 256 - LENGTH))), np.pad(targets, ((0, 0), (0, 64 - MOST)))
    wide[[1, 4], 100], wide[3, 255], far[5, 30] = 9, 9, 9
    model, seen = Predictor(run.restored, Decoding(max_length=2), run.mesh, 2), []
    score = model._score

    def listed(parameters, inputs, targets, tasks):
        seen.append((inputs.shape[1], targets.shape[1]))
        return score(parameters, inputs, targets, tasks)

    model._score = listed
    got = model.score(wide, far, task_ids)
    # Examples 0 and 2; 5 and 6; 1 and 4; and 3.
    assert seen == [(64, 16), (64, 32), (128, 16), (256, 16)]
    for row in range(7):
        each = slice(row, row + 1)
        alone = predictor(run, 1).score(wide[each], far[each], task_ids[each])
        np.testing.assert_allclose(got[each], alone, rtol=1e-5)


def test_the_last_token_of_a_long_input_is_read(run, rows):
    inputs, targets, task_ids = rows
    wide = np.pad(inputs, ((0, 0), (0, 128 - LENGTH)))
    wide[0, 127] = 7
    shifted = np.concatenate([np.zeros((7, 1), np.int32), targets[:, :-1]], axis=1)
    scores = np.take_along_axis(log_probs(run, wide, shifted, task_ids), targets[..., None], -1)[..., 0]
    got = predictor(run, 7).score(wide, targets, task_ids)
    np.testing.assert_allclose(got, (scores * (targets > 0)).sum(-1), rtol=1e-5)
    assert abs(got[0] - predictor(run, 7).score(inputs, targets, task_ids)[0]) > 1e-4


def test_a_last_batch_that_is_not_full_is_not_compiled_again(run, rows):
    inputs, targets, task_ids = rows
    model = Predictor(run.restored, Decoding(max_length=2), run.mesh, 4)
    model.predict(inputs, task_ids)
    model.score(inputs, targets, task_ids)
    assert model._decode._cache_size() == model._score._cache_size() == 1


def test_the_best_beam_is_the_prediction(run, rows):
    inputs, _, task_ids = rows
    decoding = Decoding(max_length=MOST, n_beams=3)
    beams = jax.jit(lambda *a: generate(run.restored.model, run.restored.parameters, *a, decoding))(
        inputs, task_ids
    )
    got = predictor(run, 7, n_beams=3).predict(inputs, task_ids)
    np.testing.assert_array_equal(got.tokens, beams.tokens[:, 0])
    np.testing.assert_allclose(got.scores, beams.scores.max(-1), rtol=1e-5)


def test_sampling_differs_between_batches_and_is_reproducible(run, rows):
    inputs, _, _ = rows
    same = np.repeat(inputs[:1], 8, axis=0)
    model = predictor(run, 4, temperature=2.0)
    first, second = (model.predict(same, np.zeros(8, np.int32)).tokens for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first[:4] != first[4:]).any()


def test_a_task_id_outside_the_table_is_refused_before_anything_runs(run, rows):
    inputs, targets, task_ids = rows
    model = predictor(run, 4)
    with pytest.raises(UserError, match=r"task id 4 is not in the table of 4"):
        model.predict(inputs, np.where(task_ids == 1, 4, task_ids))
    with pytest.raises(UserError, match=r"task id -1 "):
        model.score(inputs, targets, task_ids - 1)


SEVERAL_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.evaluation.predict import Predictor
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.model.parameters import init_parameters, parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.mesh import Partitioning, shardings
from poly_jax.training.restore import Restored

config = T5Config(vocab_size=32, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32, num_encoder_layers=1,
                  num_decoder_layers=1)
model = Transformer(config, Adapters(LoRA(rank=2), LearnedRouter(), n_tasks=4, n_skills=3, n_splits=2))
parameters = jax.jit(lambda key: init_parameters(model, key)[0])(jax.random.key(0))
parameters = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), parameters)
draw = np.random.default_rng(0)
inputs, targets, task_ids = draw.integers(2, 32, (7, 5)), draw.integers(2, 32, (7, 5)), np.arange(7) % 4
table, results = TaskTable(("a", "b", "c", "d")), []
one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "model"))
for mesh in (one, Partitioning(model=2).mesh()):
    placed = jax.device_put(parameters, shardings(*parameter_shapes(model), mesh))
    predictor = Predictor(Restored(model, placed, table, None, None), Decoding(max_length=5), mesh, 4)
    results.append((*predictor.predict(inputs, task_ids), predictor.score(inputs, targets, task_ids)))
expected = results[0]
for result in results[1:]:
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_allclose(result[1], expected[1], rtol=1e-4)
    np.testing.assert_allclose(result[2], expected[2], rtol=1e-4)
assert len(set(map(tuple, expected[0].tolist()))) > 1
print("equal on", jax.device_count())
"""


@pytest.mark.slow
def test_several_devices_predict_the_same_as_one_device():
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES], capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal on 4\n", done.stderr


@pytest.mark.parametrize(
    ("examples", "batch_size", "devices", "expected"),
    [
        (1, 32, 1, 1),
        (7, 32, 1, 8),
        (17, 32, 1, 32),
        (100, 32, 1, 32),
        (1, 32, 8, 8),
        (1, 12, 1, 3),
        (0, 8, 1, 1),
    ],
)
def test_few_examples_are_predicted_in_a_batch_that_just_holds_them(examples, batch_size, devices, expected):
    mesh = SimpleNamespace(shape={"data": devices, "fsdp": 1, "model": 1})
    assert rows_for(examples, batch_size, mesh) == expected


def test_a_batch_size_that_the_devices_do_not_divide_is_refused(run):
    mesh = SimpleNamespace(shape={"data": 4, "fsdp": 2, "model": 1})
    with pytest.raises(UserError, match=r"batch size 12 is not a multiple of the 8 devices"):
        Predictor(run.restored, Decoding(), mesh, 12)
