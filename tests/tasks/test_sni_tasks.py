"""Tests of Super-NaturalInstructions as seqio tasks."""

import collections
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import eval_batches, train_batches
from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio
from poly_jax.data.routed import routed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.tasks.super_natural_instructions import categories, register, source, task_name
from poly_jax.transfer.adapt import read_examples
from poly_jax.transfer.few_shot import FewShotBatches, count_examples

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 160, "targets": 12}
pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def small_folder(folder, task_file):
    """Two train tasks and two test tasks with a file, a train task without one, and a task in no list."""
    files = {
        "task1_a-b": task_file(130),
        "task2_c": task_file(40),
        "task3_d": task_file(150, Categories=["Textual Entailment", "Other"]),
        "task4_e": task_file(100),
        "task5_f": task_file(10),
    }
    return folder(files, train=("task2_c", "task1_a-b", "task9_absent"), test=("task3_d", "task4_e"))


def texts(task, split, **options):
    dataset = seqio.TaskRegistry.get(task).get_dataset(LENGTHS, split=split, **options)
    return [row["targets_pretokenized"].decode() for row in dataset.as_numpy_iterator()]


def test_every_file_is_a_task_and_every_list_a_mixture(small_folder):
    register(small_folder, BYTES)
    assert TaskTable.of("sni_train").names == ("sni_task1_a_b", "sni_task2_c")
    assert TaskTable.of("sni_test").names == ("sni_task3_d", "sni_task4_e")
    assert sorted(seqio.TaskRegistry.get("sni_task5_f").splits) == ["train"]
    assert task_name("task1_a-b") == "sni_task1_a_b"


def test_rates_are_the_numbers_of_training_examples(small_folder):
    register(small_folder, BYTES)
    mixture = seqio.MixtureRegistry.get("sni_train")
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
        "sni_task1_a_b": 100.0,
        "sni_task2_c": 40.0,
    }


def test_registering_again_does_nothing_and_with_other_settings_is_refused(small_folder):
    register(small_folder, BYTES)
    before = seqio.TaskRegistry.get("sni_task2_c")
    register(str(small_folder), vocabularies.byte())
    assert seqio.TaskRegistry.get("sni_task2_c") is before
    with pytest.raises(UserError, match=r"'sni' is registered with prompt NEW, and cannot .* again with OLD"):
        register(small_folder, BYTES, prompt="OLD")
    register(small_folder, BYTES, prompt="OLD", prefix="old")
    assert TaskTable.of("old_test").names == ("old_task3_d", "old_task4_e")


def test_a_file_is_read_only_once_and_when_it_is_needed(small_folder, monkeypatch):
    reads = collections.Counter()

    def counted(path, *options, read=source.read_task):
        reads[path.stem] += 1
        return read(path, *options)

    monkeypatch.setattr(source, "read_task", counted)
    register(small_folder, BYTES)
    TaskTable.of("sni_train")
    assert not reads
    for _ in range(2):
        texts("sni_task2_c", "train")
    assert reads == {"task2_c": 1}


def test_a_broken_file_stops_only_the_tasks_that_need_it(folder, task_file):
    register(
        folder({"task1_a": task_file(3), "task2_b": '{"Definition"'}, train=("task1_a", "task2_b")), BYTES
    )
    table = TaskTable.of("sni_train")
    assert len(texts("sni_task1_a", "train")) == 3
    with pytest.raises(UserError, match=r"task2_b\.json is not valid JSON \(.* line 1 column 14"):
        train_batches("sni_train", table, sequence_length=LENGTHS, batch_size=1, seed=0)


def test_references_are_drawn_by_seed_in_each_epoch(small_folder):
    register(small_folder, BYTES)
    options = {"shuffle": False, "num_epochs": 4}
    drawn = [texts("sni_task2_c", "train", seed=seed, **options) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    by_instance = collections.defaultdict(set)
    for text in drawn[0]:
        word, number = text.split()
        by_instance[number].add(word)
    assert len(by_instance) == 40
    # The probability that four draws miss one of the two references of an instance is 1/8.
    assert sum(words == {"answer", "reply"} for words in by_instance.values()) > 20


def test_few_shot_batches_draw_references_by_seed_and_step(small_folder):
    register(small_folder, BYTES, shots=4)
    experiment = SimpleNamespace(data=SimpleNamespace(sequence_length=LENGTHS), model=T5Config())
    name = "sni_task3_d"
    examples = read_examples(experiment, TaskTable.of(name), name, "train")
    assert count_examples(examples) == 4
    assert len(examples["task_ids"]) == 8

    def targets(seed):
        batches = itertools.islice(FewShotBatches(examples, 4, seed), 20)
        return [
            [BYTES.decode([i for i in row if i > 1]) for row in batch["decoder_target_tokens"].tolist()]
            for batch in batches
        ]

    drawn = targets(0)
    words = [
        tuple(text.split()[0] for text in sorted(step, key=lambda text: text.split()[1])) for step in drawn
    ]
    assert all(len({text.split()[1] for text in step}) == 4 for step in drawn)
    assert all(set(column) == {"answer", "reply"} for column in zip(*words, strict=True))
    assert drawn == targets(0) != targets(1)


def test_a_mixture_of_drawn_and_single_targets_keeps_the_examples_of_tasks_separate(small_folder, task_file):
    single = [{"id": str(n), "input": f"question {n}", "output": [f"answer {n}"]} for n in range(108)]
    content = json.dumps(task_file(0, Instances=single))
    (small_folder / "tasks" / "task4_e.json").write_text(content)
    register(small_folder, BYTES, shots=4)
    experiment = SimpleNamespace(data=SimpleNamespace(sequence_length=LENGTHS), model=T5Config())
    examples = read_examples(experiment, TaskTable.of("sni_test"), "sni_test", "train")
    assert examples["example_ids"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
    assert examples["task_ids"].tolist() == [0] * 8 + [1] * 4
    two = read_examples(experiment, TaskTable.of("sni_test"), "sni_test", "train", shots=2)
    assert two["task_ids"].tolist() == [0] * 4 + [1] * 2
    refused = r"shots is 5, and split 'train' of sni_task3_d has 4 .*; ask for 1 to 4"
    with pytest.raises(UserError, match=refused):
        read_examples(experiment, TaskTable.of("sni_test"), "sni_test", "train", shots=5)


def test_an_example_has_the_prompt_of_its_form(small_folder):
    register(small_folder, BYTES, prompt="OLD", positive_examples=2)
    dataset = seqio.TaskRegistry.get("sni_task4_e").get_dataset(None, split="test", shuffle=False)
    row = next(dataset.as_numpy_iterator())
    text = (
        "task4_e. Definition: Answer the question.\n\n"
        " Positive Example 1 -\nInput: one?\n Output: 1.\n Positive Example 2 -\nInput: two.\n Output: 2.\n"
        "Now complete the following example -\nInput: question 0.\nOutput: "
    )
    assert row["inputs_pretokenized"].decode() == text
    assert row["inputs"].tolist() == [*BYTES.encode(text), 1]
    assert row["references"].tolist() == [b"answer 0", b"reply 0"]


def test_test_examples_are_the_first_100_in_order(small_folder):
    register(small_folder, BYTES)
    assert [text.split()[1] for text in texts("sni_task3_d", "test", shuffle=False)] == [
        str(n) for n in range(100)
    ]
    assert len(texts("sni_task3_d", "train")) == 32
    assert len(texts("sni_task3_d", "validation")) == 18
    assert set(texts("sni_task3_d", "train_42", seed=0)) != set(texts("sni_task3_d", "train_13", seed=0))


def test_a_split_without_instances_is_refused_by_name(small_folder):
    register(small_folder, BYTES)
    assert list(seqio.TaskRegistry.get("sni_task4_e").splits) == ["test"]
    with pytest.raises(UserError, match=r"task4_e\.json: the 100 instances leave none for split 'train'"):
        texts("sni_task4_e", "train")


def test_evaluation_accepts_any_of_the_references(small_folder):
    register(small_folder, BYTES)
    view = routed("sni_test", TaskTable.of("sni_test"))
    evaluator = seqio.Evaluator(
        view.name, RoutedEncDecFeatureConverter(), eval_split="test", sequence_length=LENGTHS
    )

    def answer(place):
        ids = [*BYTES.encode(f"{'reply' if place % 2 else 'answer'} {place}"), 1]
        return np.pad(ids, (0, LENGTHS["targets"] - len(ids)))

    def predict(dataset):
        return [(int(place), answer(place)) for place, _ in dataset.as_numpy_iterator()]

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    english = seqio.metrics.Text("english")
    expected = {"exact_match": 100.0, "rougeL": 100.0, "rougeL_tokens": english, "instances": 100.0}
    assert metrics.result() == {"sni_task3_d": expected, "sni_task4_e": expected}


def test_categories_are_named_as_in_the_official_results(small_folder):
    register(small_folder, BYTES)
    assert categories(["sni_task3_d", "sni_task4_e"]) == {
        "sni_task3_d": "textual_entailment",
        "sni_task4_e": "question_answering",
    }
    with pytest.raises(UserError, match="'sni_test' is not a task of Super-NaturalInstructions"):
        categories(["sni_test"])


def test_an_empty_folder_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no task file at .*tasks/\*\.json"):
        register(tmp_path, BYTES)


@pytest.mark.parametrize("setting", [{"shots": 0}, {"few_shot_seeds": ()}, {"positive_examples": -1}])
def test_impossible_settings_are_refused_by_name(small_folder, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        register(small_folder, BYTES, **setting)


def test_super_natural_instructions_can_be_registered_from_gin(small_folder):
    loaded = configuration.load(
        [],
        [
            f"super_natural_instructions.register.folder = '{small_folder}'",
            "super_natural_instructions.register.vocabulary = @vocabularies.byte()",
            "super_natural_instructions.register.prefix = 'bound'",
        ],
    )
    loaded.make("super_natural_instructions.register")
    assert len(TaskTable.of("bound_train")) == 2


@pytest.mark.slow
def test_rows_of_real_batches_end_with_the_end_of_sequence_whether_or_not_they_are_cut(shared_data):
    t5 = vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model")
    register(shared_data / "sni", t5)
    # Summaries of papers, and stories of 150 words: most are longer than the lengths below.
    long = [
        task_name("task1540_parsed_pdfs_summarization"),
        task_name("task853_hippocorpus_long_text_generation"),
    ]
    seqio.MixtureRegistry.add("long", [*long, task_name("task1146_country_capital")], default_rate=1.0)
    lengths = {"inputs": 96, "targets": 24}
    settings = {"sequence_length": lengths, "batch_size": 8}
    batches = train_batches("long", TaskTable.of("long"), seed=3, **settings)
    cut = collections.Counter()
    for batch in itertools.islice(batches, 20):
        for feature, name in (("inputs", "encoder_input_tokens"), ("targets", "decoder_target_tokens")):
            for row in batch[name]:
                used = np.flatnonzero(row)[-1] + 1
                assert row[used - 1] == 1
                assert (row[: used - 1] > 1).all()
                cut[feature] += used == lengths[feature]
        kept = [row[row > 1][-3:].tolist() for row in batch["encoder_input_tokens"]]
        assert kept == [t5.encode("Output:")] * 8
    assert min(cut["inputs"], cut["targets"]) > 10


@pytest.mark.slow
def test_real_held_out_tasks_have_their_published_number_of_instances(shared_data):
    register(shared_data / "sni", vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model"))
    table = TaskTable.of("sni_test")
    settings = {"sequence_length": {"inputs": 64, "targets": 8}, "batch_size": 50}
    counts = collections.Counter()
    for batch in eval_batches("sni_test", table, split="test", **settings):
        counts.update(batch["task_ids"][batch["decoder_loss_weights"].any(axis=1)].tolist())
    assert len(counts) == 10
    assert set(counts.values()) == {100}
