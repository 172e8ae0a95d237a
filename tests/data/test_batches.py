"""Tests of the batches that models train on."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

SETTINGS = {"sequence_length": {"inputs": 12, "targets": 12}, "batch_size": 4}


def draw(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(left, right):
    for before, after in zip(left, right, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def same(left, right):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(left, right, strict=True) for name in a)


@pytest.fixture
def random_mixture(plain_task, numbered):
    """Two tasks with a random preprocessor: the source of one knows its size, that of the other does not.

    Each of their epochs is read anew, which takes a fifth of a second: ten batches of four are three of each.
    """

    @seqio.map_over_dataset(num_seeds=1)
    def drawn(example, seed):
        return {**example, "targets": tf.random.stateless_uniform([1], seed, 3, 259, tf.int32)}

    def read(split, shuffle_files):
        return numbered("big", 7)

    sized = seqio.FunctionDataSource(read, ("train",), num_input_examples={"train": 7})
    plain_task("big", source=sized, preprocessors=[drawn])
    plain_task("odd", size=6, preprocessors=[drawn])
    seqio.MixtureRegistry.add("random", ["big", "odd"], default_rate=1.0)
    return "random"


@pytest.fixture
def generated_task(plain_task):
    """A task from a Python generator, whose iterator TensorFlow cannot save."""

    def read(split, shuffle_files):
        return tf.data.Dataset.from_generator(
            lambda: ({"inputs": [n, 1], "targets": [n, 1]} for n in range(9)),
            output_signature={name: tf.TensorSpec([2], tf.int32) for name in ("inputs", "targets")},
        )

    plain_task("generated", source=seqio.FunctionDataSource(read, splits=("train",)))
    return "generated"


def test_a_batch_has_the_models_arrays(stream, plain_mixture, decode):
    table = TaskTable.of(plain_mixture)
    batch = next(stream(plain_mixture))
    assert {name: array.shape for name, array in batch.items()} == {
        "encoder_input_tokens": (4, 12),
        "decoder_input_tokens": (4, 12),
        "decoder_target_tokens": (4, 12),
        "decoder_loss_weights": (4, 12),
        "task_ids": (4,),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
    for row in range(4):
        name = table.name(batch["task_ids"][row])
        assert decode(batch["encoder_input_tokens"][row]).startswith(f"{name} in ")
        assert decode(batch["decoder_target_tokens"][row]).startswith(f"{name} out ")


def test_the_same_seed_gives_the_same_batches_and_another_seed_different_ones(stream, random_mixture):
    first, again, other = (draw(stream(random_mixture, seed=seed), 10) for seed in (1, 1, 2))
    assert_same(first, again)
    assert not same(first, other)


def test_random_preprocessors_draw_new_values_in_each_epoch(stream, random_mixture, decode):
    drawn = {}
    for batch in draw(stream(random_mixture), 16):
        for text, target in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True):
            drawn.setdefault(decode(text), set()).add(int(target[0]))
    assert len(drawn) == 7 + 6
    assert min(len(targets) for targets in drawn.values()) > 1


def test_resuming_continues_as_if_it_had_not_stopped(stream, random_mixture, tmp_path):
    uninterrupted = stream(random_mixture)
    # The second saved position replaces the first.
    for count in (1, 6):
        draw(uninterrupted, count)
        uninterrupted.save(tmp_path / "position")
    rest = draw(uninterrupted, 8)
    resumed = stream(random_mixture)
    resumed.restore(tmp_path / "position")
    assert_same(draw(resumed, 8), rest)


def test_a_stream_can_go_back_to_a_position(stream, random_mixture, tmp_path):
    batches = stream(random_mixture)
    draw(batches, 3)
    batches.save(tmp_path / "position")
    rest = draw(batches, 5)
    batches.restore(tmp_path / "position")
    assert_same(draw(batches, 5), rest)


def test_a_python_generator_resumes_too(stream, generated_task, tmp_path):
    uninterrupted = stream(generated_task)
    draw(uninterrupted, 11)
    uninterrupted.save(tmp_path / "position")
    rest = draw(uninterrupted, 12)
    for used in (0, 5):
        resumed = stream(generated_task)
        draw(resumed, used)
        resumed.restore(tmp_path / "position")
        assert_same(draw(resumed, 12), rest)


def test_reset_starts_the_stream_again(stream, random_mixture):
    batches = stream(random_mixture)
    first = draw(batches, 6)
    batches.reset()
    assert_same(draw(batches, 6), first)


_PROGRAM = """
import sys
import numpy as np
from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable

def read(split, shuffle_files):
    ids = [[number, 1] for number in range(2, 52)]
    return tf.data.Dataset.from_tensor_slices({"inputs": ids, "targets": ids})

feature = seqio.Feature(seqio.ByteVocabulary())
for name in ("a", "b"):
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(read, ("train",), num_input_examples={"train": 50}),
        output_features={"inputs": feature, "targets": feature},
    )
seqio.MixtureRegistry.add("ab", ["a", "b"], default_rate=1.0)
lengths = {"inputs": 4, "targets": 4}
batches = train_batches("ab", TaskTable.of("ab"), sequence_length=lengths, batch_size=3, seed=4)
action, path = sys.argv[1:]
if action == "resume":
    batches.restore(path)
    print([batch["encoder_input_tokens"].tolist() for batch, _ in zip(batches, range(20))])
else:
    for _ in range(9):
        next(batches)
    batches.save(path)
    print([batch["encoder_input_tokens"].tolist() for batch, _ in zip(batches, range(20))])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("registry")
def test_another_process_resumes_the_same_stream(tmp_path, monkeypatch, capsys):
    place = str(tmp_path / "position")
    monkeypatch.setattr(sys, "argv", ["-c", "begin", place])
    exec(_PROGRAM, {})
    begun = capsys.readouterr().out
    resumed = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "resume", place], capture_output=True, text=True, check=True
    )
    assert resumed.stdout == begun
    assert resumed.stderr == ""


def test_a_position_saved_with_other_settings_is_refused(stream, plain_mixture, tmp_path):
    stream(plain_mixture).save(tmp_path / "position")
    with pytest.raises(UserError, match=r"has batch_size 4, and this run has 8"):
        stream(plain_mixture, batch_size=8).restore(tmp_path / "position")
    with pytest.raises(UserError, match=r"has seed 1, and this run has 2"):
        stream(plain_mixture, seed=2).restore(tmp_path / "position")


def test_a_missing_position_is_reported_by_name(stream, plain_mixture, tmp_path):
    with pytest.raises(UserError, match=r"no position of a data stream is saved at .*absent"):
        stream(plain_mixture).restore(tmp_path / "absent")


def test_two_hosts_of_a_streamed_mixture_divide_its_examples(plain_task, decode):
    plain_task("long", size=40)
    settings = {**SETTINGS, "seed": 1, "reading": "streamed", "num_shards": 2}
    seen = [
        {
            decode(row)
            for batch in draw(train_batches("long", TaskTable.of("long"), shard_id=shard, **settings), 30)
            for row in batch["encoder_input_tokens"]
        }
        for shard in range(2)
    ]
    assert [len(texts) for texts in seen] == [20, 20]
    assert not seen[0] & seen[1]


def test_an_empty_task_is_named_when_it_is_drawn(stream, plain_task):
    plain_task("full")
    plain_task("hollow", size=0)
    seqio.MixtureRegistry.add("half", ["full", "hollow"], default_rate=1.0)
    with pytest.raises(UserError, match=r"task 'hollow' has no example in split 'train'"):
        draw(stream("half"), 30)


def test_a_task_whose_preprocessors_drop_every_example_is_named(plain_task):
    plain_task("dropped", preprocessors=[lambda dataset: dataset.filter(lambda example: False)])
    with pytest.raises(
        UserError, match=r"task 'dropped' has no example .* or its preprocessors drop every one"
    ):
        train_batches("dropped", TaskTable.of("dropped"), **SETTINGS, seed=1)


_DROPS_ALL = """
import seqio
from poly_jax.data import stream
from poly_jax.data.batches import train_batches
from poly_jax.data.task_table import TaskTable

stream._SECONDS_BEFORE_SEARCH = 1
for name in ("whole", "dropped"):
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files: seqio.dataset_providers.tf.data.Dataset.from_tensor_slices(
                {"inputs": ["a", "b"], "targets": ["c", "d"]}
            ),
            splits=("train",),
        ),
        preprocessors=[
            *([lambda dataset: dataset.filter(lambda example: False)] if name == "dropped" else []),
            seqio.preprocessors.tokenize,
        ],
        output_features={name: seqio.Feature(seqio.ByteVocabulary()) for name in ("inputs", "targets")},
    )
seqio.MixtureRegistry.add("both", ["whole", "dropped"], default_rate=1.0)
lengths = {"inputs": 4, "targets": 4}
batches = train_batches(
    "both", TaskTable.of("both"), sequence_length=lengths, batch_size=8, seed=0, reading="streamed"
)
try:
    next(batches)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_streamed_task_whose_preprocessors_drop_every_example_is_named_and_the_program_ends():
    # A program of its own, because TensorFlow goes on to look for an example until its process ends.
    done = subprocess.run([sys.executable, "-c", _DROPS_ALL], capture_output=True, text=True, timeout=120)
    assert "UserError the preprocessors of task 'dropped' drop every example of split 'train'" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"split": "dev"}, r"no split 'dev'; its splits are test, train"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"num_shards": 2, "shard_id": 2}, "shard_id 2"),
        ({"sequence_length": {"inputs": 4}}, r"sequence_length \{'inputs': 4\}"),
        ({"sequence_length": {"inputs": 4, "targets": 0}}, "1 or more"),
    ],
)
def test_impossible_settings_are_refused_by_name(stream, plain_mixture, settings, complaint):
    with pytest.raises(UserError, match=complaint):
        stream(plain_mixture, **settings)


def test_a_task_without_inputs_is_refused(stream, registry):
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, splits=("train",))
    feature = seqio.Feature(seqio.ByteVocabulary())
    seqio.TaskRegistry.add("language_model", source=source, output_features={"targets": feature})
    with pytest.raises(UserError, match="'language_model' have no feature 'inputs'"):
        stream("language_model")


def test_hosts_of_a_run_take_their_own_rows_of_the_same_batches(plain_mixture):
    settings = {**SETTINGS, "seed": 3}
    table = TaskTable.of(plain_mixture)
    whole = draw(train_batches(plain_mixture, table, **{**settings, "batch_size": 8}), 20)
    shares = [
        draw(train_batches(plain_mixture, table, num_shards=2, shard_id=shard, **settings), 20)
        for shard in range(2)
    ]
    joined = [
        {name: np.concatenate([left[name], right[name]]) for name in left}
        for left, right in zip(*shares, strict=True)
    ]
    assert_same(whole, joined)


def test_a_position_serves_any_number_of_hosts(plain_mixture, tmp_path):
    settings = {**SETTINGS, "seed": 3}
    table = TaskTable.of(plain_mixture)
    one = train_batches(plain_mixture, table, **{**settings, "batch_size": 8})
    draw(one, 7)
    one.save(tmp_path / "position")
    rest = draw(one, 5)
    second = train_batches(plain_mixture, table, num_shards=2, shard_id=1, **settings)
    second.restore(tmp_path / "position")
    for whole, half in zip(rest, draw(second, 5), strict=True):
        np.testing.assert_array_equal(whole["encoder_input_tokens"][4:], half["encoder_input_tokens"])


def test_an_epoch_of_a_task_has_each_of_its_examples_once(plain_task, decode):
    plain_task("long", size=12)
    batches = train_batches("long", TaskTable.of("long"), **SETTINGS, seed=1)
    epochs = [
        [decode(row) for batch in draw(batches, 3) for row in batch["encoder_input_tokens"]] for _ in "abc"
    ]
    assert [len(set(epoch)) for epoch in epochs] == [12, 12, 12]
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_without_shuffling_examples_come_in_the_order_of_their_source(plain_task, decode):
    plain_task("long", size=6)
    batches = train_batches("long", TaskTable.of("long"), **SETTINGS, seed=1, shuffle=False)
    found = [decode(row) for batch in draw(batches, 3) for row in batch["encoder_input_tokens"]]
    assert found == [f"long in {number % 6:02}" for number in range(12)]


def test_both_ways_of_reading_make_the_same_rows(plain_mixture):
    def rows(reading):
        batches = train_batches(
            plain_mixture, TaskTable.of(plain_mixture), **SETTINGS, seed=1, reading=reading
        )
        return {
            tuple(np.concatenate([np.ravel(batch[name][row]) for name in sorted(batch)]))
            for batch in draw(batches, 60)
            for row in range(4)
        }

    assert rows("indexed") == rows("streamed")
    assert len(rows("indexed")) == 12


def test_a_position_of_the_other_way_of_reading_is_refused_with_what_to_do(plain_mixture, tmp_path):
    def stream(reading):
        return train_batches(plain_mixture, TaskTable.of(plain_mixture), **SETTINGS, seed=1, reading=reading)

    for saved, other in (("streamed", "indexed"), ("indexed", "streamed")):
        stream(saved).save(tmp_path / saved)
        with pytest.raises(UserError, match=f"read with Data.reading = '{saved}'.*resume with '{saved}'"):
            stream(other).restore(tmp_path / saved)


def test_a_position_in_other_examples_is_refused(plain_task, tmp_path):
    plain_task("first", size=5)
    train_batches("first", TaskTable.of("first"), **SETTINGS, seed=1).save(tmp_path / "position")
    seqio.TaskRegistry.remove("first")
    plain_task("first", size=6)
    changed = train_batches("first", TaskTable.of("first"), **SETTINGS, seed=1)
    with pytest.raises(UserError, match=r"has examples '.*', and this run has"):
        changed.restore(tmp_path / "position")


def test_a_task_of_rate_zero_is_not_read(plain_task):
    def fail(split, shuffle_files):
        raise AssertionError

    plain_task("used")
    plain_task("unused", source=seqio.FunctionDataSource(fail, splits=("train",)))
    seqio.MixtureRegistry.add("half", [("used", 1.0), ("unused", 0.0)])
    table = TaskTable.of("half")
    batches = train_batches("half", table, **SETTINGS, seed=1)
    assert {int(id) for batch in draw(batches, 9) for id in batch["task_ids"]} == {table.id("used")}
