"""Rows of several examples: which examples share a row, and how they lie in it."""

import itertools

import numpy as np
import pytest

from poly_jax.data.batches import train_batches
from poly_jax.data.packing import Example, Waiting, pack_rows
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

ROOM = (10, 6)
LENGTHS = {"inputs": 30, "targets": 30}


def example(inputs, targets, task=0):
    """An example of these tokens, or of so many tokens."""
    tokens = (np.zeros(each, int) if isinstance(each, int) else np.array(each) for each in (inputs, targets))
    return Example(*tokens, task)


def next_row(inputs, targets, room, most, packing):
    """Places of the examples that a row takes, of waiting ones with inputs and targets of these lengths."""
    examples = [
        example(*lengths, task=place) for place, lengths in enumerate(zip(inputs, targets, strict=True))
    ]
    return [chosen.task for chosen in Waiting(examples).take_row(room, most, packing)]


@pytest.mark.parametrize(
    ("packing", "row"),
    [
        # 4 is the oldest; then 3 and 2 as they come, which leaves 1; or 6, which fills the row.
        ("first-fit", [0, 1, 2]),
        ("best-fit", [0, 3]),
    ],
)
def test_a_row_takes_the_oldest_example_and_then_those_that_the_packing_prefers(packing, row):
    assert next_row([4, 3, 2, 6, 7], [1] * 5, ROOM, 16, packing) == row


@pytest.mark.parametrize("packing", ["first-fit", "best-fit"])
def test_a_row_has_room_for_the_targets_of_its_examples_and_no_more_than_the_most(packing):
    assert next_row([1, 1, 1], [4, 3, 2], ROOM, 16, packing) == [0, 2]
    assert next_row([1] * 8, [0] * 8, ROOM, 3, packing) == [0, 1, 2]
    assert next_row([10, 1], [6, 1], ROOM, 16, packing) == [0]


def test_the_packed_batch_is_the_one_that_seqio_would_lay_out():
    rows = [[([3, 4], [5, 6, 1], 2), ([7], [8, 1], 0)], [([9, 9, 9], [1], 4)]]
    rows = [[example(*each) for each in row] for row in rows]
    batch = pack_rows(rows, (4, 6), most=3, start_id=11)
    # By the definitions of seqio's packed features.
    expected = {
        "encoder_input_tokens": [[3, 4, 7, 0], [9, 9, 9, 0]],
        "encoder_segment_ids": [[1, 1, 2, 0], [1, 1, 1, 0]],
        "decoder_input_tokens": [[11, 5, 6, 11, 8, 0], [11, 0, 0, 0, 0, 0]],
        "decoder_target_tokens": [[5, 6, 1, 8, 1, 0], [1, 0, 0, 0, 0, 0]],
        "decoder_loss_weights": [[1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]],
        "decoder_segment_ids": [[1, 1, 1, 2, 2, 0], [1, 0, 0, 0, 0, 0]],
        "task_ids": [[2, 0, 0], [4, 0, 0]],
    }
    assert {name: array.tolist() for name, array in batch.items()} == expected
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def examples_of(batch):
    """Every packed example: its task, input and target."""
    return [
        (
            int(ids[number - 1]),
            tuple(tokens[segments == number].tolist()),
            tuple(targets[target_segments == number].tolist()),
        )
        for ids, tokens, segments, targets, target_segments in zip(
            *(
                batch[name]
                for name in (
                    "task_ids",
                    "encoder_input_tokens",
                    "encoder_segment_ids",
                    "decoder_target_tokens",
                    "decoder_segment_ids",
                )
            ),
            strict=True,
        )
        for number in range(1, target_segments.max() + 1)
    ]


@pytest.fixture(params=["indexed", "streamed"])
def reading(request):
    return request.param


@pytest.fixture
def packed(plain_mixture, reading):
    """A function that makes a packed stream of the mixture."""

    def make(packing="best-fit", seed=1, **options):
        return train_batches(
            plain_mixture,
            TaskTable.of(plain_mixture),
            **{"sequence_length": LENGTHS, "batch_size": 2, "reading": reading, **options},
            seed=seed,
            packing=packing,
            max_segments=5,
        )

    return make


def unpacked_examples(name, count, reading):
    table = TaskTable.of(name)
    batch = next(
        train_batches(name, table, sequence_length=LENGTHS, batch_size=count, seed=1, reading=reading)
    )
    return [
        (int(task), tuple(inputs[inputs > 0].tolist()), tuple(targets[targets > 0].tolist()))
        for task, inputs, targets in zip(
            batch["task_ids"], batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
        )
    ]


@pytest.mark.parametrize("packing", ["first-fit", "best-fit"])
def test_no_example_is_lost_doubled_or_changed(packed, plain_mixture, packing, reading):
    stream = packed(packing)
    taken = [example for _ in range(20) for example in examples_of(next(stream))]
    waiting = [(task, tuple(i.tolist()), tuple(t.tolist())) for i, t, task, _ in stream._waiting]
    read = unpacked_examples(plain_mixture, len(taken) + len(waiting), reading)
    assert sorted(taken + waiting) == sorted(read)


def test_a_restored_stream_continues_with_the_batch_that_would_have_come_next(packed, tmp_path):
    stream = packed()
    for _ in range(3):
        next(stream)
    stream.save(tmp_path / "position")
    expected = [next(stream) for _ in range(3)]
    restored = packed()
    restored.restore(tmp_path / "position")
    for batch, other in zip(expected, (next(restored) for _ in range(3)), strict=True):
        for name in batch:
            np.testing.assert_array_equal(other[name], batch[name])


@pytest.mark.parametrize("damage", ["cut", "absent"])
def test_a_damaged_position_is_reported_in_one_line(packed, tmp_path, damage):
    stream = packed()
    next(stream)
    stream.save(tmp_path / "position")
    path = tmp_path / "position.waiting.safetensors"
    path.write_bytes(path.read_bytes()[:50]) if damage == "cut" else path.unlink()
    with pytest.raises(UserError, match=r"wait to be packed, at .*waiting\.safetensors, are damaged"):
        packed().restore(tmp_path / "position")


def test_one_seed_gives_one_stream(packed):
    left, right, other = (
        [examples_of(batch) for batch in itertools.islice(packed(seed=seed), 4)] for seed in (1, 1, 2)
    )
    assert left == right
    assert left != other


def test_best_fit_leaves_little_padding(registry):
    """Lengths like those of Super-NaturalInstructions: most are short, some fill a row."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(np.exp(rng.normal(5.0, 0.8, 20_000)), 1024).astype(int)
    targets = np.minimum(np.exp(rng.normal(1.8, 1.0, 20_000)) + 1, 128).astype(int)
    every = [example(*each) for each in zip(lengths.tolist(), targets.tolist(), strict=True)]
    filled, waiting, ahead = [], Waiting(every[:1024]), iter(every[1024:])
    for _ in range(2000):
        row = waiting.take_row((1024, 128), 16, "best-fit")
        filled.append(sum(len(each.inputs) for each in row))
        waiting.add(itertools.islice(ahead, len(row)))
    assert np.mean(filled) / 1024 >= 0.97


def test_seqio_itself_reads_a_packed_row_alike(registry):
    """seqio's own packer gives the same features for the same examples, where it strips no zero."""
    examples = [([3, 4], [5, 6, 1]), ([7], [8, 1])]
    features = {name: seqio.Feature(seqio.PassThroughVocabulary(10)) for name in ("inputs", "targets")}
    dataset = seqio.dataset_providers.tf.data.Dataset.from_generator(
        lambda: ({"inputs": i, "targets": t} for i, t in examples),
        output_signature={name: seqio.dataset_providers.tf.TensorSpec([None], "int32") for name in features},
    )
    converted = seqio.EncDecFeatureConverter(pack=True)(dataset, {"inputs": 4, "targets": 6})
    (theirs,) = converted.as_numpy_iterator()
    rows = [[example(*each) for each in examples]]
    ours = pack_rows(rows, (4, 6), most=2)
    for name in set(theirs) & set(ours):
        np.testing.assert_array_equal(ours[name][0], theirs[name], err_msg=name)
    assert len(set(theirs) & set(ours)) == 6


def test_hosts_of_a_run_pack_the_same_rows_and_take_their_own(plain_mixture):
    settings = {"sequence_length": LENGTHS, "seed": 3, "packing": "best-fit", "max_segments": 5}
    table = TaskTable.of(plain_mixture)
    whole = train_batches(plain_mixture, table, batch_size=4, **settings)
    shares = [
        train_batches(plain_mixture, table, batch_size=2, num_shards=2, shard_id=shard, **settings)
        for shard in range(2)
    ]
    for _ in range(5):
        joined = [next(share) for share in shares]
        for name, array in next(whole).items():
            np.testing.assert_array_equal(array, np.concatenate([batch[name] for batch in joined]))


def test_a_position_in_a_packed_mixture_of_2000_tasks_takes_less_than_64_kib(plain_task, numbered, tmp_path):
    """The tokens of the examples that wait would take ten times as much."""
    examples = numbered("any", 50)
    source = seqio.FunctionDataSource(lambda split, shuffle_files: examples, splits=("train",))
    for number in range(2000):
        plain_task(f"task{number:04}", source=source)
    seqio.MixtureRegistry.add("many", [f"task{number:04}" for number in range(2000)], default_rate=1.0)
    stream = train_batches(
        "many",
        TaskTable.of("many"),
        sequence_length={"inputs": 1024, "targets": 128},
        batch_size=4,
        seed=0,
        packing="best-fit",
    )
    for _ in range(9):
        next(stream)
    stream.save(tmp_path / "position")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2**16
