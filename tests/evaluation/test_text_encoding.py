"""Texts are encoded to the tokens that their task gives its examples in training."""

import io
import pathlib
import sys

import pytest

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.evaluation.text_encoding import encoder_of, say_if_endless, t5_encoder, task_encoder
from poly_jax.evaluation.texts import read_records

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 6, "targets": 6}
TOKENIZE, APPEND = seqio.preprocessors.tokenize, seqio.preprocessors.append_eos
AFTER_TRIM = seqio.preprocessors.append_eos_after_trim
TEXTS = ["ab", "abcdef", "abcdefgh", ""]


def prefixed(dataset):
    return dataset.map(lambda example: {**example, "inputs": "q: " + example["inputs"]})


def own_tokenizer(dataset):
    def encode(example):
        ids = tf.concat([tf.cast(BYTES.encode_tf(example["inputs"]), tf.int32), [1]], 0)
        return {"inputs": ids, "targets": tf.cast(BYTES.encode_tf(example["targets"]), tf.int32)}

    return dataset.map(encode)


@pytest.fixture
def task():
    """A function that makes an unregistered task of the texts above, or one whose data cannot be read."""

    def make(preprocessors, add_eos=True, texts=TEXTS):
        def read(split, shuffle_files, seed=None):
            if texts is None:
                raise OSError("not downloaded")
            return tf.data.Dataset.from_tensor_slices({"inputs": texts, "targets": texts})

        feature = seqio.Feature(BYTES, add_eos=add_eos)
        return seqio.Task(
            "little",
            source=seqio.FunctionDataSource(read, splits=("train",)),
            preprocessors=preprocessors,
            output_features={"inputs": feature, "targets": feature},
        )

    return make


@pytest.mark.parametrize("add_eos", [True, False])
@pytest.mark.parametrize(
    "preprocessors",
    [
        [TOKENIZE],
        [TOKENIZE, APPEND],
        [TOKENIZE, seqio.CacheDatasetPlaceholder(), AFTER_TRIM],
        [seqio.preprocessors.tokenize_and_append_eos],
    ],
)
def test_a_text_gets_the_tokens_that_training_gives_it(task, preprocessors, add_eos):
    made = task(preprocessors, add_eos)
    dataset = made.get_dataset(LENGTHS, "train", shuffle=False)
    expected = [row["inputs"].tolist() for row in dataset.as_numpy_iterator()]
    rows = task_encoder(made, LENGTHS)(TEXTS)
    assert rows.tolist() == [[*row, *[0] * (6 - len(row))] for row in expected]


def test_a_text_is_expected_in_the_form_that_reaches_the_tokenizer(task):
    rows = task_encoder(task([prefixed, TOKENIZE, APPEND]), LENGTHS)(["q: ab"])
    assert rows.tolist() == [[116, 61, 35, 100, 101, 1]]


def test_with_a_custom_tokenizer_the_examples_show_whether_texts_end_with_eos(task, capsys):
    made = task([own_tokenizer])
    assert task_encoder(made, LENGTHS)(["ab"]).tolist() == [[100, 101, 1, 0, 0, 0]]
    assert task_encoder(made, LENGTHS, "targets")(["ab"]).tolist() == [[100, 101, 0, 0, 0, 0]]
    assert not capsys.readouterr().err


def test_where_examples_cannot_be_read_t5s_convention_is_used_with_a_notice(task, capsys):
    rows = task_encoder(task([own_tokenizer], texts=None), LENGTHS)(["ab"])
    assert rows.tolist() == [[100, 101, 1, 0, 0, 0]]
    assert "cannot be read (" in capsys.readouterr().err


def test_the_number_of_texts_that_are_cut_is_reported(task, capsys):
    task_encoder(task([TOKENIZE, APPEND]), LENGTHS)(TEXTS)
    assert capsys.readouterr().err == "1 of 4 texts were cut to 6 tokens; the rest was not read\n"
    task_encoder(task([TOKENIZE, AFTER_TRIM]), LENGTHS)(TEXTS)
    assert capsys.readouterr().err.startswith("2 of 4 texts were cut to 6 tokens")
    task_encoder(task([TOKENIZE]), LENGTHS)(["ab"])
    assert not capsys.readouterr().err


def test_targets_without_an_end_of_sequence_are_reported(task, capsys):
    say_if_endless(task([TOKENIZE, APPEND]), LENGTHS)
    assert not capsys.readouterr().err
    say_if_endless(task([TOKENIZE]), LENGTHS)
    assert "the targets of task 'little' have no end of sequence" in capsys.readouterr().err


def test_without_a_task_texts_end_with_eos_and_are_cut_before_it():
    rows = t5_encoder(BYTES, 4)(["abcdef", "a", ""])
    assert rows.tolist() == [[100, 101, 102, 1], [100, 1, 0, 0], [1, 0, 0, 0]]
    assert encoder_of(None, BYTES, 4)(["a"]).tolist() == [[100, 1, 0, 0]]


def test_half_of_a_surrogate_pair_is_refused(task):
    with pytest.raises(UserError, match="half of a surrogate pair"):
        task_encoder(task([TOKENIZE]), LENGTHS)(["\ud83d"])


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa b\r\nc\r\n", b"a b\nc", b"a b\r\nc"])
def test_byte_order_marks_and_carriage_returns_do_not_reach_the_model(tmp_path, monkeypatch, content):
    (tmp_path / "in.txt").write_bytes(content)
    assert read_records(str(tmp_path / "in.txt")) == [{"inputs": "a b"}, {"inputs": "c"}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""))
    assert read_records("-") == [{"inputs": "a b"}, {"inputs": "c"}]


def test_the_recorded_task_without_an_end_of_sequence_is_encoded_without_one(shared_cases, monkeypatch):
    tasks, mixtures = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    monkeypatch.syspath_prepend(shared_cases / "mixture_rate_unknown_count")
    sys.modules.pop("my_tasks", None)
    try:
        import my_tasks  # noqa: F401

        no_eos = seqio.TaskRegistry.get("no_eos")
    finally:
        seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = tasks, mixtures
    lengths = {"inputs": 16, "targets": 8}
    row = next(no_eos.get_dataset(lengths, "validation", shuffle=False).as_numpy_iterator())
    ids = task_encoder(no_eos, lengths)(["copy abc0"])[0].tolist()
    assert ids == [102, 114, 115, 124, 35, 100, 101, 102, 51] + [0] * 7
    assert ids[:9] == row["inputs"].tolist()


def test_the_recorded_texts_with_a_byte_order_mark_are_encoded_and_cut(shared_cases, task, capsys):
    folder = pathlib.Path(shared_cases / "infer_cut_and_bom")
    marked = read_records(str(folder / "bom.txt"))
    assert [record["inputs"] for record in marked] == ["lqm hdcgib", "lqm ihgc"]
    asked = [record["inputs"] for record in read_records(str(folder / "in.txt"))]
    task_encoder(task([TOKENIZE, APPEND]), {"inputs": 12, "targets": 8})(asked)
    assert capsys.readouterr().err == "1 of 4 texts were cut to 12 tokens; the rest was not read\n"
