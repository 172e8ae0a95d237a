"""Files become seqio tasks with references, answer choices, splits and metrics, and a mixture of them."""

import collections
import itertools
import json
import pathlib

import numpy as np
import pytest
from etils import epath
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, matthews_corrcoef

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.from_files import METRICS, register, tasks
from poly_jax.tasks.from_files.example_table import ExampleTable
from poly_jax.tasks.from_files.examples import Example

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 30, "targets": 8}
# Made by the package datasets 5.2.0: DatasetDict.save_to_disk, Dataset.save_to_disk with two shards, and
# Dataset.to_parquet, of the columns review, label (a ClassLabel, bad and good) and answers.
SAVED = pathlib.Path(__file__).parent / "saved_data_sets"


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


@pytest.fixture
def folder(tmp_path):
    """Twenty questions with two answers each in one file, and reviews in CSV files by split."""
    questions = [json.dumps({"question": f"q{n}?", "answer": [f"a{n}", f"A{n}"]}) for n in range(20)]
    (tmp_path / "trivia.jsonl").write_text("\n".join(questions) + "\n")
    (tmp_path / "my-reviews").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        rows = "".join(f'"{split} {n}, fine",{n % 2}\n' for n in range(count))
        (tmp_path / "my-reviews" / f"{split}.csv").write_text(f"text,label\n{rows}")
    return tmp_path


def rows(task, split="train", **options):
    task = seqio.TaskRegistry.get(task)
    return list(task.get_dataset(LENGTHS, split, **{"shuffle": False} | options).as_numpy_iterator())


def texts(task, split="train", feature="inputs", **options):
    return [row[f"{feature}_pretokenized"].decode() for row in rows(task, split, **options)]


def test_every_file_and_folder_is_a_task_and_the_mixture_weighs_them_by_their_training_rows(folder):
    register(str(folder), BYTES)
    assert TaskTable.of("mine").names == ("mine_my_reviews", "mine_trivia")
    mixture = seqio.MixtureRegistry.get("mine")
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
        "mine_my_reviews": 3.0,
        "mine_trivia": 20.0,
    }


def test_settings_are_for_all_tasks_or_for_one_by_its_name(folder):
    register(
        str(folder),
        BYTES,
        inputs={"my-reviews": "Review: {text}\nGood?"},
        choices={"my-reviews": ["no", "yes"]},
        metrics={"trivia": ["exact_match", "squad_f1"]},
    )
    assert texts("mine_my_reviews", "test") == [f"Review: test {n}, fine\nGood?" for n in range(2)]
    assert texts("mine_my_reviews", "test", "targets") == ["no", "yes"]
    assert texts("mine_trivia")[:2] == ["q0?", "q1?"]
    names = {task.name: [m.name for m in task.metric_fns] for task in seqio.MixtureRegistry.get("mine").tasks}
    assert names == {"mine_my_reviews": ["rank_accuracy"], "mine_trivia": ["exact_match", "squad_f1"]}


def test_tokens_are_those_of_the_vocabulary_and_end_where_they_are_cut(folder):
    register(str(folder), BYTES, choices={"my-reviews": ["no", "yes, it is"]})
    row = rows("mine_my_reviews", "test")[1]
    assert row["inputs"].tolist() == [*BYTES.encode("test 1, fine"), 1]
    cut = [*BYTES.encode("yes, it"), 1]
    assert row["targets"].tolist() == cut
    assert row["choices"].tolist() == [[*BYTES.encode("no"), 1, 0, 0, 0, 0, 0], cut]
    assert (row["label"], row["example_id"]) == (1, 1)


def test_a_training_target_is_drawn_from_the_references_and_evaluation_gets_all(folder):
    register(str(folder), BYTES)
    drawn = {tuple(texts("mine_trivia", feature="targets", seed=seed)) for seed in range(3)}
    assert len(drawn) == 3
    assert all(target in (f"a{n}", f"A{n}") for draw in drawn for n, target in enumerate(draw))
    task = seqio.TaskRegistry.get("mine_trivia")
    assert task.postprocess_fn("", example=rows("mine_trivia")[4], is_target=True) == ["a4", "A4"]


def test_fractions_divide_the_training_rows_of_tasks_without_the_split(folder):
    register(str(folder), BYTES, fractions={"validation": 0.1, "test": 0.25})
    assert sorted(seqio.TaskRegistry.get("mine_trivia").splits) == ["test", "train", "validation"]
    parts = {split: texts("mine_trivia", split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 13, "validation": 2, "test": 5}
    assert sorted(itertools.chain(*parts.values())) == sorted(f"q{n}?" for n in range(20))
    # A split that has a file keeps its rows, and at least one row is cut.
    assert texts("mine_my_reviews", "test") == ["test 0, fine", "test 1, fine"]
    assert len(texts("mine_my_reviews", "validation")) == 1
    register(str(folder), BYTES, fractions={"validation": 0.1, "test": 0.25}, seed=1, prefix="other")
    assert texts("other_trivia", "test") != parts["test"]


def test_a_seed_shuffles_the_whole_split_and_each_row_comes_once(folder):
    register(str(folder), BYTES)
    source = seqio.TaskRegistry.get("mine_trivia").source

    def order(seed):
        return [row["inputs"] for row in source.get_dataset("train", True, seed).as_numpy_iterator()]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2)) == sorted(f"q{n}?".encode() for n in range(20))


def test_a_file_is_read_only_once_and_when_it_is_needed(folder, monkeypatch):
    reads = collections.Counter()
    read_rows = tasks.FilesSource._examples

    def counted(self, split, check):
        reads[self._task, split] += 1
        return read_rows(self, split, check)

    monkeypatch.setattr(tasks.FilesSource, "_examples", counted)
    register(str(folder), BYTES, fractions={"test": 0.1, "validation": 0.1})
    TaskTable.of("mine")
    assert not reads
    for split in ("train", "validation", "test") * 2:
        seqio.TaskRegistry.get("mine_trivia").num_input_examples(split)
        rows("mine_trivia", split)
    assert reads == {("trivia", "train"): 1}


def test_examples_in_several_blocks_equal_those_in_one():
    examples = [
        Example(f"i{n}", tuple(f"r{n}{m}" for m in range(1 + n % 3)), tuple("abcd"[: 2 + n // 4]), n % 2)
        for n in range(9)
    ]
    one, several = ExampleTable(examples), ExampleTable(iter(examples), block=4)
    order = np.array([8, 0, 4, 3, 7])
    for places in (None, order):
        found = list(several.dataset(places).as_numpy_iterator())
        np.testing.assert_equal(found, list(one.dataset(places).as_numpy_iterator()))
    assert [row["inputs"] for row in found] == [f"i{n}".encode() for n in order]
    assert (len(one), len(several)) == (9, 9)


def test_all_tasks_have_the_same_preprocessors(folder):
    register(str(folder), BYTES)
    first, second = (task.preprocessors for task in seqio.MixtureRegistry.get("mine").tasks)
    assert first[-1] is second[-1]


def test_saved_data_sets_of_hugging_face_have_the_rows_and_labels_that_were_saved():
    register(str(SAVED), BYTES, inputs="review", targets="label")
    assert TaskTable.of("mine").names == ("mine_dict", "mine_one", "mine_three")
    assert texts("mine_dict", "train") == ["film 0", "film 1", "film 2"]
    assert texts("mine_dict", "train", "targets") == ["bad", "good", "bad"]
    assert texts("mine_dict", "test") == ["film 0", "film 1"]
    # The rows 3 and 1 of a data set, one in each of two files.
    assert texts("mine_one", "train") == ["film 3", "film 1"]
    assert texts("mine_three", "train", "targets") == ["bad", "good", "bad"]


def test_values_inside_a_column_of_a_saved_data_set_can_be_the_references():
    register(str(SAVED / "dict"), BYTES, inputs="{review} of {answers[text][1]}", targets="{answers[text]}")
    assert texts("mine_dict", "test") == ["film 0 of b", "film 1 of b"]
    assert [row["references"].tolist() for row in rows("mine_dict", "test")] == [[b"a0", b"b"], [b"a1", b"b"]]


def test_a_mixture_gives_batches_with_the_ids_of_its_tasks(folder):
    register(str(folder), BYTES, choices={"my-reviews": ["no", "yes"]})
    stream = train_batches("mine", TaskTable.of("mine"), sequence_length=LENGTHS, batch_size=40, seed=0)
    batch = next(stream)
    stream.close()
    names = [BYTES.decode(row.tolist())[0] for row in batch["encoder_input_tokens"]]
    assert set(zip(batch["task_ids"].tolist(), names, strict=True)) == {(0, "t"), (1, "q")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": "exact_mach"}, "'exact_mach', which is not a metric; did you mean 'exact_match'"),
        ({"metrics": "zzz"}, "use one of 'exact_match', 'accuracy'"),
        ({"metrics": "rank_accuracy"}, r"ranks answer choices; bind from_files\.register\.choices too"),
        ({"inputs": {"trivai": "x"}}, r"inputs has a value for 'trivai', .* \(did you mean 'trivia'\?\)"),
        ({"fractions": 0.5}, r"fractions is 0\.5; give a share for each split, such as \{'test': 0\.1\}"),
        ({"fractions": {"test": "0.1"}}, "give a share for each split"),
        ({"fractions": {"dev": 0.1}}, "has the split 'dev'; give shares for 'validation' and 'test'"),
        ({"fractions": {"test": 1.0}}, "give shares above 0 that leave some rows for 'train'"),
        ({"fractions": {"test": 0.5, "validation": 0.5}}, "leave some rows"),
        ({"prefix": "mine_trivia"}, None),
        ({"prefix": "a b"}, r"from_files\.register\.prefix is 'a b'; use letters, digits"),
        ({"prefix": ""}, r"from_files\.register\.prefix is ''; use letters, digits"),
    ],
)
def test_a_wrong_setting_is_refused_when_tasks_are_registered(folder, settings, message):
    if message is None:
        register(str(folder), BYTES)
        message = "seqio already has a task or mixture 'mine_trivia'"
    with pytest.raises(UserError, match=message) as raised:
        register(str(folder), BYTES, **settings)
    assert "\n" not in str(raised.value)
    assert tasks._registered.keys() <= {"mine"}


def test_names_in_any_script_are_kept_and_two_that_become_one_are_refused(tmp_path):
    row = json.dumps({"question": "q", "answer": "a"}) + "\n"
    for name in ("日本", "été"):
        (tmp_path / f"{name}.jsonl").write_text(row)
    register(str(tmp_path), BYTES)
    assert {"mine_日本", "mine_été"} <= set(seqio.TaskRegistry.names())
    for name in ("a-b", "a b"):
        (tmp_path / f"{name}.jsonl").write_text(row)
    with pytest.raises(UserError, match="would be the seqio task 'other_a_b', as another name"):
        register(str(tmp_path), BYTES, prefix="other")


def test_a_second_call_does_nothing_and_other_arguments_need_another_prefix(folder):
    for _ in range(2):
        register(str(folder), BYTES, inputs={"trivia": "question"})
    with pytest.raises(UserError, match=r"'mine' is registered with inputs .*cannot be registered again"):
        register(str(folder), BYTES)
    register(str(folder), BYTES, prefix="other")


def test_too_few_rows_for_the_fractions_and_an_unknown_split_are_named(folder):
    (folder / "small.jsonl").write_text('{"input": "x", "output": "y"}\n')
    register(str(folder), BYTES, fractions={"test": 0.1})
    source = seqio.TaskRegistry.get("mine_small").source
    with pytest.raises(UserError, match="task 'small' has 1 row, too few to cut test from them"):
        source.get_dataset("train")
    with pytest.raises(UserError, match="task 'small' has no split 'validation'; it has train, test"):
        source.get_dataset("validation")
    (folder / "empty.csv").write_text("input,output\n")
    register(str(folder), BYTES, prefix="other")
    with pytest.raises(UserError, match=r"empty\.csv has no row for split 'train' of task 'empty'"):
        seqio.TaskRegistry.get("other_empty").source.get_dataset("train")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "inputs",
            "Q: {qestion}",
            r"inputs names 'qestion', which no row of .*t\.jsonl has \(did you mean 'question'",
        ),
        (
            "targets",
            "{answer[txt]}",
            r"targets names 'answer\[txt\]', which no row of \S* has; correct the name",
        ),
        (
            "choices",
            "yes",
            r"choices names 'yes', .*; correct the name, or give the choices themselves as a tuple",
        ),
    ],
)
def test_a_setting_that_names_no_field_of_a_file_is_blamed_and_not_the_rows(
    tmp_path, setting, value, message
):
    (tmp_path / "t.jsonl").write_text('{"question": "q", "answer": {"text": "a"}}\n' * 2)
    columns = {"inputs": "question", "targets": "{answer[text]}"}
    register(str(tmp_path), BYTES, **columns | {setting: value}, max_broken_share=0.5)
    with pytest.raises(UserError, match=f"^from_files.register.{message}"):
        seqio.TaskRegistry.get("mine_t").source.get_dataset("train")


def test_a_field_that_only_some_rows_have_is_missing_in_the_others(tmp_path):
    rows = [{"question": "q"}, {"question": "q", "answer": "a"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    register(str(tmp_path), BYTES, targets="answer")
    with pytest.raises(UserError, match=r"t\.jsonl, line 1 has no field 'answer'"):
        seqio.TaskRegistry.get("mine_t").source.get_dataset("train")


REFERENCES = [["the cat"], ["a dog", "2"], ["3.5"], ["yes"]]
FIRST = [texts[0] for texts in REFERENCES]
PREDICTIONS = ["cat", "2", "4", "YES"]


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("exact_match", 25),  # "2" alone.
        ("accuracy", 50),  # "YES" equals "yes" up to case.
        ("squad_exact_match", 75),  # "cat" equals "the cat" without its article.
        ("squad_f1", 75),
        # One of the two words of "the cat": precision 1 and recall 1/2, so that F1 is 2/3.
        ("rouge1", 100 * (2 / 3 + 1 + 0 + 1) / 4),
        ("rougeL", 100 * (2 / 3 + 1 + 0 + 1) / 4),
        ("rouge2", 0),
        (
            "macro_f1",
            100 * f1_score(FIRST, PREDICTIONS, average="macro", zero_division=0.0),
        ),
        ("matthews_correlation", 100 * matthews_corrcoef(FIRST, PREDICTIONS)),
    ],
)
def test_metrics_by_name_have_the_values_of_their_definitions(name, percent):
    assert METRICS[name](REFERENCES, PREDICTIONS) == {name: pytest.approx(percent)}


def test_pearson_correlation_is_scipys():
    found = METRICS["pearson_correlation"]([["1"], ["2.5"], ["4"]], ["1", "about 2", "7"])
    assert found["pearson_correlation"] == pytest.approx(100 * pearsonr([1, 2.5, 4], [1, 2, 7])[0])


def test_rank_accuracy_compares_scores_per_token_and_text_metrics_take_the_same_targets(folder):
    register(str(folder), BYTES, choices={"my-reviews": ["no", "yes"]})
    task = seqio.TaskRegistry.get("mine_my_reviews")
    targets = [
        task.postprocess_fn("", example=row, is_target=True) for row in rows("mine_my_reviews", "test")
    ]
    assert [target["tokens"] for target in targets] == [[3, 4]] * 2
    # The second example is right because -8 / 4 is above -7 / 3.
    scores = np.array([[-3.0, -9.0], [-7.0, -8.0]])
    assert METRICS["rank_accuracy"](targets, scores) == {"rank_accuracy": 100.0}
    assert METRICS["exact_match"](targets, ["no", "no"]) == {"exact_match": 50.0}


def test_the_metrics_of_the_documentation_are_those_that_exist():
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "your_tasks.md").read_text()
    section = page.partition("## Metrics")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(name for cell in cells for name in cell.split("`")[1::2]) == sorted(METRICS)


def test_the_recipes_bind_everything_but_the_folder_and_the_vocabulary(folder):
    loaded = configuration.load(["recipes/from_files/tiny.gin"], [f"TASKS = {str(folder)!r}"])
    loaded.experiment().data.register_tasks()
    assert len(TaskTable.of("mine")) == 2
    with pytest.raises(UserError, match="TASKS"):
        configuration.load(["recipes/from_files/data.gin"])


def test_paths_with_home_and_variables_are_expanded(folder, monkeypatch):
    monkeypatch.setenv("MY_FOLDER", str(folder))
    loaded = configuration.load(["recipes/from_files/tiny.gin"], ["TASKS = '$MY_FOLDER'"])
    loaded.experiment().data.register_tasks()
    assert tasks._registered["mine"].folder == str(folder)
    assert epath.Path(tasks._registered["mine"].folder).is_dir()
