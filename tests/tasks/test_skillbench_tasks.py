"""seqio gives exactly the examples and tokens of the NumPy generator, under the documented names."""

import numpy as np
import pytest

from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.skillbench import tasks
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.examples import examples, splits, tokenise
from poly_jax.tasks.skillbench.pretraining import pretraining_examples

BENCHMARK = benchmark()
LENGTHS = {"inputs": 12, "targets": 10}


def served(name, split, **kwargs):
    """Return the text pairs that a seqio task or mixture gives, in its order."""
    dataset = seqio.get_mixture_or_task(name).get_dataset(LENGTHS, split, **{"shuffle": False, **kwargs})
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("form", ["named", "nameless"])
@pytest.mark.parametrize("role", ["train", "heldout", "tuning"])
def test_a_registered_task_gives_the_examples_of_the_generator(role, form):
    task = getattr(BENCHMARK, role)[0]
    name = tasks.registered_name(task.name, form)
    assert set(seqio.get_mixture_or_task(name).splits) == set(splits(task))
    for split in splits(task):
        assert served(name, split) == examples(task, split, form=form)


@pytest.mark.parametrize("form", ["", "nameless_"])
@pytest.mark.parametrize("role", ["train", "heldout", "tuning"])
def test_a_mixture_holds_the_tasks_of_its_role(role, form):
    mixture = seqio.get_mixture_or_task(f"skillbench_{form}{role}")
    expected = {f"skillbench_{form}{task.name}" for task in getattr(BENCHMARK, role)}
    assert {task.name for task in mixture.tasks} == expected
    assert {mixture.get_rate(task) for task in mixture.tasks} == {1.0}


def test_seqios_converter_makes_the_arrays_of_tokenise():
    task = BENCHMARK.train[0]
    dataset = seqio.get_dataset(
        f"skillbench_{task.name}",
        LENGTHS,
        dataset_split="test",
        shuffle=False,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
    )
    rows = list(dataset.as_numpy_iterator())
    expected = tokenise(examples(task, "test"))
    assert set(rows[0]) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.stack([row[name] for row in rows]), array)


def test_a_training_mixture_draws_from_all_its_tasks():
    table = TaskTable.of("skillbench_train")
    batch = next(train_batches("skillbench_train", table, sequence_length=LENGTHS, batch_size=128, seed=0))
    vocabulary = seqio.get_mixture_or_task("skillbench_train").output_features["inputs"].vocabulary
    names = {vocabulary.decode(row.tolist())[:3] for row in batch["encoder_input_tokens"]}
    assert names == {task.name for task in BENCHMARK.train}


def test_another_data_seed_is_registered_beside_the_first():
    tasks.register(3)
    tasks.register(data_seed=3)
    tasks.register(0)
    task = BENCHMARK.heldout[0]
    assert served(f"skillbench_{task.name}_seed3", "train") == examples(task, "train", 3)
    assert served(f"skillbench_{task.name}", "train") == examples(task, "train", 0)
    mixture = seqio.get_mixture_or_task("skillbench_nameless_heldout_seed3")
    assert {name.name for name in mixture.tasks} == {
        f"skillbench_nameless_{task.name}_seed3" for task in BENCHMARK.heldout
    }


def test_a_negative_data_seed_is_refused_in_one_clear_line():
    with pytest.raises(UserError, match="data_seed=-1"):
        tasks.register(-1)


def test_pretraining_gives_the_tokens_of_the_stream_and_a_separate_validation_split():
    task = seqio.get_mixture_or_task("skillbench_pretrain")
    assert task.num_input_examples("train") >= 300_000
    vocabulary = task.output_features["inputs"].vocabulary

    def texts(split, count):
        rows = list(task.get_dataset(LENGTHS, split, shuffle=False).take(count).as_numpy_iterator())
        for row in rows:
            assert row["inputs"][-1] == row["targets"][-1] == vocabulary.eos_id
            assert row["inputs"].min() == row["targets"].min() == vocabulary.eos_id  # No padding.
        return [
            (vocabulary.decode(row["inputs"].tolist()), vocabulary.decode(row["targets"].tolist()))
            for row in rows
        ]

    train = texts("train", 3000)
    expected = [pair for chunk in (0, 1) for pair in pretraining_examples(BENCHMARK, 2048, (0, 1, chunk))]
    assert train == expected[:3000]
    validation = texts("validation", -1)
    assert len(validation) == task.num_input_examples("validation") == 2048
    assert len(set(validation) & set(train)) < 50  # Short strings to copy may coincide by chance.


def test_exact_match_counts_whole_strings():
    assert tasks.exact_match(["ab", "cd", "ef", ""], ["ab", "CD", "ef ", ""]) == {"exact_match": 50.0}


def test_seqios_evaluator_scores_each_task_by_exact_match():
    evaluator = seqio.Evaluator(
        "skillbench_heldout",
        seqio.EncDecFeatureConverter(pack=False),
        eval_split="test",
        sequence_length=LENGTHS,
        async_compute_metrics=False,
    )

    def predict(dataset):
        rows = [(int(index), row["decoder_target_tokens"]) for index, row in dataset.as_numpy_iterator()]
        # Make every fourth prediction wrong: with the end of sequence first, it is empty.
        return [(index, [1] + [0] * 9 if index % 4 == 0 else tokens.tolist()) for index, tokens in rows]

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    assert metrics.result() == {
        f"skillbench_{task.name}": {"exact_match": 75.0} for task in BENCHMARK.heldout
    }
