"""`poly-jax data` shows what the model sees: the rows of training, their tokens, lengths and fill."""

import io
import itertools
import json

import numpy as np
import pytest
import sentencepiece

from poly_jax import cli
from poly_jax.data import vocabularies
from poly_jax.data.added_tokens import AddedTokensVocabulary
from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.experiment import Data
from poly_jax.inspection.sample import packed_rows, read_sample
from poly_jax.inspection.statistics import Fill, Lengths, fill, lengths
from poly_jax.inspection.token_texts import printable, token_texts
from poly_jax.tasks.from_files import register, tasks

BYTES = vocabularies.byte()
DATA = Data("mine", 24, 8, packing="best-fit")
LENGTHS = DATA.sequence_length


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten questions and answers, some longer than a row, and five reviews with choices and a test split."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = [{"question": f"q{n}" + " why" * n, "answer": [f"a{n}", f"A{n}"]} for n in range(10)]
    (folder / "trivia.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (folder / "reviews").mkdir()
    for split, count in (("train", 5), ("test", 2)):
        rows = "".join(f"{split} {n},{n % 2}\n" for n in range(count))
        (folder / "reviews" / f"{split}.csv").write_text(f"text,label\n{rows}")
    return folder


@pytest.fixture(scope="module")
def registered(folder):
    """The mixture of the two tasks."""
    names, mixtures = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    before = dict(tasks._registered)
    tasks._registered.clear()
    register(str(folder), BYTES, choices={"reviews": ("no", "yes")})
    yield TaskTable.of("mine")
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = names, mixtures
    tasks._registered.clear()
    tasks._registered.update(before)


@pytest.fixture(scope="module")
def sample(registered):
    return read_sample("mine", registered, DATA, seed=3)


def stream(table, batch_size=4, **options):
    return train_batches("mine", table, sequence_length=LENGTHS, batch_size=batch_size, seed=3, **options)


def test_the_first_rows_are_those_of_training_with_the_same_seed(sample, registered):
    ours = stream(registered)
    expected = [
        {name: array[row : row + 1] for name, array in batch.items()}
        for batch in itertools.islice(ours, 3)
        for row in range(4)
    ]
    ours.close()
    np.testing.assert_equal(list(itertools.islice(packed_rows(sample, DATA, "none"), 12)), expected)


def test_packed_rows_are_those_of_training_with_the_same_seed(sample, registered):
    packed = stream(registered, batch_size=1, packing="best-fit", max_segments=DATA.max_segments)
    expected = list(itertools.islice(packed, 200))
    packed.close()
    np.testing.assert_equal(list(itertools.islice(packed_rows(sample, DATA, "best-fit"), 200)), expected)


def test_lengths_are_those_before_examples_are_cut(sample):
    # The longest question has 2 + 9 * 4 letters and an end of sequence.
    assert sample.inputs_lengths.max() == 39
    assert max(len(example.inputs) for example in sample.examples) == 24
    assert len(sample.inputs_lengths) == len(sample.examples) == 2048


def test_percentiles_and_the_share_that_is_cut():
    tokens = np.arange(1, 101)
    assert lengths(tokens, 90) == Lengths((50, 90, 95, 99, 100), 0.1)
    assert lengths(np.array([7]), 7) == Lengths((7,) * 5, 0.0)


def test_fill_counts_tokens_that_are_not_padding():
    def row(inputs, targets, segments):
        return {
            "encoder_input_tokens": np.array([inputs]),
            "decoder_target_tokens": np.array([targets]),
            "decoder_segment_ids": np.array([segments]),
        }

    rows = [row([5, 5, 5, 0], [5, 1], [1, 2]), row([5, 0, 0, 0], [5, 0], [1, 0])]
    assert fill(rows) == Fill(rows=2, inputs=0.5, targets=0.75, examples=1.5)
    unpacked = {name: array for name, array in rows[0].items() if name != "decoder_segment_ids"}
    assert fill([unpacked]).examples == 1


def test_bytes_are_shown_as_characters_where_they_can_be_printed():
    assert token_texts(BYTES, BYTES.encode("a é\n")) == ["a", "␣", "\\xc3", "\\xa9", "\\x0a"]
    assert token_texts(BYTES, [0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert token_texts(seqio.ByteVocabulary(extra_ids=2), [259, 260]) == ["<extra_id_0>", "<extra_id_1>"]


def test_pieces_are_sentencepieces_own(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ab cd"] * 10),
        model_writer=model,
        vocab_size=9,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path / "spiece.model"
    path.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocabulary = vocabularies.sentencepiece(str(path), extra_ids=2)
    ids = vocabulary.encode("cd ab")
    assert token_texts(vocabulary, ids) == processor.encode("cd ab", out_type=str)
    size = processor.get_piece_size()
    # T5 numbers its sentinels from the end.
    assert token_texts(vocabulary, [1, size, size + 1]) == ["</s>", "▁<extra_id_1>", "▁<extra_id_0>"]
    added = AddedTokensVocabulary(vocabulary, {"<new>": size + 5})
    assert token_texts(added, [*ids, size + 5]) == [*processor.encode("cd ab", out_type=str), "<new>"]
    assert token_texts(vocabulary, [size + 90]) == ["<unk>"]


def test_characters_that_steer_a_terminal_are_not_printed():
    assert printable("é \x1b[31m\u202e") == "é \\x1b[31m\\u202e"


@pytest.fixture
def config(folder, tmp_path, monkeypatch):
    """A gin file of the tasks, in the current folder; what the command registers is undone."""
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(tasks, "_registered", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text(
        f"""
from_files.register.folder = '{folder}'
from_files.register.vocabulary = @vocabularies.byte()
from_files.register.choices = {{'reviews': ('no', 'yes')}}
Data.register = @from_files.register
Data.mixture = 'mine'
Data.inputs_length = 24
Data.targets_length = 8
"""
    )
    return ["data", "--gin_file=mine.gin"]


def test_the_command_shows_rates_examples_lengths_fill_and_segments(config, capsys):
    assert cli.main(config) == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert ["mine_reviews", "0", "5", "5", "33.33 %"] in rows
    assert ["mine_trivia", "1", "10", "10", "66.67 %"] in rows
    assert "mine_trivia (task id 1), example 1 of split train" in shown
    assert "inputs, 3 of at most 24 tokens\n  q0\n  q·116 0·51 </s>·1\n" in shown
    assert "* no\n    yes\n" in shown
    assert "  a0\n  A0\n" in shown
    (first,) = [row for row in rows if row[0] == "none (bound)"]
    assert first[1] == "2,048"
    assert first[-1] == "1.00"
    assert any(row[:2] == ["1", "mine_trivia"] or row[:2] == ["1", "mine_reviews"] for row in rows)
    assert "Data.packing is 'none', so that this run does not pack its rows" in shown


def test_one_task_and_another_split_can_be_shown(config, capsys):
    assert cli.main([*config, "--task=mine_reviews", "--split=test", "--examples=2"]) == 0
    shown = capsys.readouterr().out
    assert "mine_reviews (task id 0), example 2 of split test" in shown
    assert "test 1" in shown
    assert "(task id 1)" not in shown
    assert "tokens of 2,048 examples of task mine_reviews" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mixture=mien"], "registered as 'mien' (did you mean 'mine'"),
        (
            ["--task=mine_trvia"],
            "task 'mine_trvia' is not in the table of 2 tasks (did you mean 'mine_trivia'",
        ),
        (["--split=dev"], "'mine' has no split 'dev'; choose one with --split: test, train"),
        (["--task=mine_trivia", "--split=test"], "'mine_trivia' has no split 'test'"),
        (["--gin.from_files.register.folder='absent'"], "there is no folder or file absent"),
        (["--gin.Data.packing='worst-fit'"], "Data.packing is 'worst-fit'"),
        (["--run=absent"], "there is no folder absent; give"),
    ],
)
def test_bad_input_gives_one_line(config, flags, message, capsys):
    assert cli.main([*config, *flags]) == 1
    said = capsys.readouterr().err
    assert said.startswith("poly-jax: error: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_configuration_without_data_is_refused_in_one_line(config, capsys):
    assert cli.main(["data"]) == 1
    assert "Data.mixture" in capsys.readouterr().err


def test_a_broken_row_is_named_in_one_line(config, tmp_path, capsys):
    (tmp_path / "broken.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n')
    broken = ("--gin.from_files.register.folder='broken.jsonl'", "--gin.from_files.register.choices=None")
    assert cli.main([*config, *broken]) == 1
    said = capsys.readouterr().err
    assert said.startswith("poly-jax: error: broken.jsonl, line 2 has no field 'output'")
    assert said.count("\n") == 1
