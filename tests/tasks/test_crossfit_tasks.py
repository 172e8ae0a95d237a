"""CrossFit as seqio tasks and mixtures, from small folders and from real files."""

import collections
import itertools
import json
from types import SimpleNamespace

import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import eval_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.tasks.crossfit import register, task_name, tasks, training_steps
from poly_jax.transfer.adapt import read_examples
from poly_jax.transfer.few_shot import FewShotBatches, count_examples

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 60, "targets": 8}
METRICS = {"own-task": "EM"}


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


def write(folder, task, seed, kind, lines, shots=4):
    (folder / "data" / task).mkdir(parents=True, exist_ok=True)
    path = folder / "data" / task / f"{task}_{shots}_{seed}_{kind}.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three train tasks, of which one has no files, a dev task and a test task, each with two samples."""
    (tmp_path / "splits").mkdir()
    parts = {"train": ["xsum", "own-task", "absent"], "dev": ["web_questions"], "test": ["openbookqa"]}
    (tmp_path / "splits" / "mine.json").write_text(json.dumps({**parts, "all": []}))
    for seed, kind in itertools.product((13, 100), ("train", "dev", "test")):
        for task, size in (("xsum", 2), ("own-task", 4), ("web_questions", 2)):
            write(tmp_path, task, seed, kind, [f"{kind} {seed} {n}\tone {n}\ttwo {n}" for n in range(size)])
        write(tmp_path, "openbookqa", seed, kind, ["Which? (A) x y (B) z\tz"])
    return tmp_path


def rows(task, split, lengths=LENGTHS, **options):
    dataset = seqio.TaskRegistry.get(task).get_dataset(lengths, split=split, shuffle=False, **options)
    return list(dataset.as_numpy_iterator())


def prompts(task, split):
    return [row["inputs_pretokenized"].decode() for row in rows(task, split)]


def bound(folder, **options):
    register(folder, BYTES, **{"partition": "mine", "metrics": METRICS, **options})


def test_the_parts_of_a_partition_are_mixtures_of_the_tasks_with_files(folder, capsys):
    bound(folder)
    assert TaskTable.of("crossfit_train").names == ("crossfit_own_task", "crossfit_xsum")
    assert TaskTable.of("crossfit_dev").names == ("crossfit_web_questions",)
    assert TaskTable.of("crossfit_test").names == ("crossfit_openbookqa",)
    assert TaskTable.of("crossfit_held_out").names == ("crossfit_openbookqa",)
    assert "2 of the 3 tasks of crossfit_train have files" in capsys.readouterr().err


def test_a_task_that_is_trained_on_and_held_out_is_named(folder, capsys):
    (folder / "splits" / "leaky.json").write_text(
        json.dumps({"train": ["xsum"], "dev": ["xsum"], "test": []})
    )
    bound(folder, partition="leaky")
    assert "leaky: xsum is a train task and a held-out task" in capsys.readouterr().err
    assert TaskTable.of("crossfit_held_out").names == TaskTable.of("crossfit_train").names


def test_rates_are_the_numbers_of_training_rows_of_all_samples(folder):
    bound(folder)
    mixture = seqio.MixtureRegistry.get("crossfit_train")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates == {"crossfit_own_task": 8.0, "crossfit_xsum": 4.0}


def test_a_prompt_starts_with_the_name_of_its_task(folder):
    bound(folder)
    assert prompts("crossfit_own_task", "train_13")[:2] == [
        " [own-task] train 13 0",
        " [own-task] train 13 1",
    ]
    row = rows("crossfit_openbookqa", "test")[0]
    assert row["inputs"].tolist() == [*BYTES.encode(" [openbookqa] Which? (A) x y (B) z"), 1]
    assert row["targets"].tolist() == [*BYTES.encode(" z"), 1]


def test_a_description_stands_between_the_tag_and_the_input(folder):
    path = folder / "descriptions.json"
    path.write_text(json.dumps({"xsum": "Sum it up", "unknown": "x"}))
    bound(folder, descriptions=str(path))
    assert prompts("crossfit_xsum", "test")[0] == " [xsum] Sum it up. test 100 0"
    assert prompts("crossfit_web_questions", "test")[0] == " [web_questions] test 100 0"


def test_long_texts_are_cut_before_the_end_of_sequence(folder):
    bound(folder)
    row = rows("crossfit_openbookqa", "test", {"inputs": 5, "targets": 2})[0]
    assert row["inputs"].tolist() == [*BYTES.encode(" [op"), 1]
    assert row["targets"].tolist() == [*BYTES.encode(" "), 1]


def test_training_joins_the_samples_and_each_sample_is_a_split(folder):
    bound(folder)
    task = seqio.TaskRegistry.get("crossfit_xsum")
    samples = [f"{split}_{seed}" for seed in (100, 13) for split in ("train", "validation")]
    assert list(task.splits) == ["train", "validation", "all", *samples, "test"]
    tag = " [xsum] "
    assert prompts("crossfit_xsum", "train") == [tag + f"train {s} {n}" for s in (100, 13) for n in (0, 1)]
    assert prompts("crossfit_xsum", "validation_13") == [tag + "dev 13 0", tag + "dev 13 1"]
    assert len(prompts("crossfit_xsum", "all")) == 8
    assert prompts("crossfit_xsum", "test") == [tag + "test 100 0", tag + "test 100 1"]
    with pytest.raises(UserError, match="task 'xsum' has no split 'train_1'; its files give train, valid"):
        task.source.rows("train_1")


def test_the_samples_can_be_chosen(folder):
    bound(folder, seeds=[13])
    assert prompts("crossfit_xsum", "train") == [" [xsum] train 13 0", " [xsum] train 13 1"]


def test_references_are_drawn_by_seed_in_each_epoch(folder):
    bound(folder)
    options = {"num_epochs": 8}
    drawn = [
        [row["targets_pretokenized"].decode() for row in rows("crossfit_xsum", "train", seed=seed, **options)]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {f" {word} {n}" for word in ("one", "two") for n in (0, 1)}


def test_few_shot_batches_draw_from_all_references_of_a_row(folder):
    bound(folder)
    experiment = SimpleNamespace(data=SimpleNamespace(sequence_length=LENGTHS), model=T5Config())
    name = "crossfit_web_questions"
    examples = read_examples(experiment, TaskTable.of(name), name, "train_100")
    assert count_examples(examples) == 2
    assert len(examples["task_ids"]) == 4
    batches = itertools.islice(FewShotBatches(examples, 2, 0), 20)
    seen = {
        BYTES.decode([i for i in row if i > 1])
        for batch in batches
        for row in batch["decoder_target_tokens"].tolist()
    }
    assert seen == {f" {word} {n}" for word in ("one", "two") for n in (0, 1)}


def test_evaluation_compares_with_all_references(folder):
    bound(folder)
    task = seqio.TaskRegistry.get("crossfit_own_task")
    assert task.metric_fns[0].metric == "EM"
    assert seqio.TaskRegistry.get("crossfit_xsum").metric_fns[0].metric == "Rouge-L"
    (first, *_) = rows("crossfit_own_task", "test")
    references = task.postprocess_fn("", example=first, is_target=True)
    assert references == ["one 0", "two 0"]
    assert task.metric_fns[0]([references], [task.postprocess_fn(" TWO 0 ")])["score"] == 100


def test_no_file_is_read_before_it_is_needed_and_then_once(folder, monkeypatch):
    reads = collections.Counter()

    def counted(path, *checks, read=tasks.SampleSource.rows.__globals__["read_rows"]):
        reads[path.name] += 1
        return read(path, *checks)

    monkeypatch.setitem(tasks.SampleSource.rows.__globals__, "read_rows", counted)
    bound(folder)
    assert not reads
    for _ in range(2):
        rows("crossfit_xsum", "train_13")
    assert reads == {"xsum_4_13_train.tsv": 1}


def test_a_broken_row_is_named_when_its_split_is_read(folder):
    path = write(folder, "web_questions", 100, "test", ["a\tyes", "b"])
    bound(folder)
    assert len(rows("crossfit_web_questions", "train")) == 4
    with pytest.raises(UserError, match=r"web_questions_4_100_test\.tsv, line 2 has no tab") as error:
        list(
            eval_batches(
                "crossfit_web_questions",
                TaskTable.of("crossfit_web_questions"),
                split="test",
                sequence_length=LENGTHS,
                batch_size=1,
            )
        )
    assert str(path) in str(error.value)


def test_an_answer_outside_the_choices_is_refused_in_multiple_choice_tasks_only(folder):
    for task in ("openbookqa", "web_questions"):
        write(folder, task, 100, "test", ["Which? (A) x y (B) z\tw"])
    bound(folder)
    with pytest.raises(
        UserError, match=r"openbookqa_4_100_test\.tsv, line 1: target 'w' is not one of the ch"
    ):
        rows("crossfit_openbookqa", "test")
    assert len(rows("crossfit_web_questions", "test")) == 1
    bound(folder, check_choices=False, prefix="unchecked")
    assert len(rows("unchecked_openbookqa", "test")) == 1


def test_a_target_that_is_no_label_of_a_classification_task_is_refused(folder):
    write(folder, "glue-qnli", 100, "test", ["a\tentailment", "b\tnot entailed"])
    (folder / "splits" / "mine.json").write_text(json.dumps({"train": ["glue-qnli"], "dev": [], "test": []}))
    bound(folder)
    message = (
        r"line 2: target 'not entailed' is not one of the task's labels 'entailment', 'not_entailment'; "
    )
    with pytest.raises(UserError, match=message):
        rows("crossfit_glue_qnli", "test")
    bound(folder, check_choices=False, prefix="unchecked")
    assert len(rows("unchecked_glue_qnli", "test")) == 2


def test_registering_again_does_nothing_and_with_other_settings_is_refused(folder):
    bound(folder)
    before = seqio.TaskRegistry.get("crossfit_xsum")
    bound(str(folder))
    assert seqio.TaskRegistry.get("crossfit_xsum") is before
    with pytest.raises(UserError, match="'crossfit' is registered with check_choices True, and cannot be"):
        bound(folder, check_choices=False)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"partition": "min"}, r"no partition at .*min\.json; did you mean 'mine'"),
        ({"metrics": {}}, "task 'own-task' is not one of CrossFit's 160, so its metric is not known; bind"),
        ({"metrics": {"own-task": "F1"}}, "gives 'F1' to task 'own-task'; use one of 'ACC', "),
        ({"seeds": (1,)}, r"has no file of seed 1; it has seeds 13, 100"),
        ({"shots": {"xsum": 32}}, "numbers of shots: 4; crossfit.register.shots asks for 32"),
        ({"descriptions": "absent.json"}, r"absent\.json is missing"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(folder, options, complaint):
    with pytest.raises(UserError, match=complaint):
        bound(folder, **options)


def test_a_folder_without_files_is_refused(folder, tmp_path):
    (tmp_path / "other" / "splits").mkdir(parents=True)
    (folder / "splits" / "mine.json").rename(tmp_path / "other" / "splits" / "mine.json")
    with pytest.raises(UserError, match=r"no task of partition 'mine' has a file at .*give the folder that"):
        bound(tmp_path / "other")


def test_steps_are_epochs_of_the_train_tasks_rows(folder):
    # 12 rows of train, 24 of train and dev; the dev and test tasks do not count.
    assert training_steps(folder, "mine", epochs=30, batch_size=8) == 45
    assert training_steps(folder, "mine", epochs=1, batch_size=5) == 3
    assert training_steps(folder, "mine", epochs=1, batch_size=8, split="all") == 3
    assert training_steps(folder, "mine", epochs=1, batch_size=1, seeds=(13,)) == 6
    with pytest.raises(UserError, match="epochs is 0 and batch_size 8"):
        training_steps(folder, "mine", epochs=0)
    with pytest.raises(UserError, match="no train task of partition 'mine' has a split 'tran'"):
        training_steps(folder, "mine", split="tran")


def test_the_tiny_recipe_counts_its_steps_and_registers_its_tasks(folder):
    loaded = configuration.load(
        ["recipes/crossfit/pretrain_tiny.gin"],
        [f"CROSSFIT='{folder}'", "PARTITION='mine'", f"crossfit.register.metrics={METRICS}"],
    )
    arguments = loaded.arguments("train", output_dir="x")
    assert arguments["steps"] == 2
    arguments["experiment"].data.register_tasks()
    assert TaskTable.of("crossfit_train").names == ("crossfit_own_task", "crossfit_xsum")


def test_the_published_recipe_has_the_papers_settings(folder):
    loaded = configuration.load(
        ["recipes/crossfit/pretrain.gin", "recipes/crossfit/few_shot.gin", "recipes/crossfit/zero_shot.gin"],
        [f"CROSSFIT='{folder}'", "PARTITION='mine'", "VOCABULARY='v'", "Experiment.backbone='b'"],
    )
    arguments = loaded.arguments("train", output_dir="x")
    data, optimizer = arguments["experiment"].data, arguments["optimizer"]
    # 30 epochs of 12 examples, ten in a step, as two packed rows. Published: eight in a step, one in a row.
    assert arguments["steps"] == 36
    assert (data.packing, data.batch_size, data.inputs_length, data.targets_length) == (
        "best-fit",
        2,
        512,
        64,
    )
    assert (optimizer.algorithm, optimizer.learning_rate, optimizer.router_learning_rate) == (
        "adamw",
        1e-3,
        0.1,
    )
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.warmup_fraction) == (0.01, 0.1, 0.06)
    assert (arguments["loss"].label_smoothing, arguments["loss"].normalize_by) == (0.1, "examples")
    adapting = loaded.arguments("adapt", run="r", task="t", output_dir="x")
    assert (adapting["steps"], adapting["batch_size"], adapting["split_name"]) == (1000, 8, "train_100")
    assert adapting["optimizer"] == optimizer
    assert adapting["loss"] == arguments["loss"]
    evaluating = loaded.arguments("evaluate", run="r")
    assert (evaluating["mixture"], evaluating["zero_shot"]) == ("crossfit_held_out", True)


def test_the_sweep_has_the_test_tasks_of_the_real_random_partition(shared_data):
    loaded = configuration.load(["recipes/crossfit/few_shot_sweep.gin"])
    published = json.loads((shared_data / "crossfit" / "splits" / "random.json").read_text())
    bound_tasks = loaded.bound("sweep")["tasks"]
    assert list(bound_tasks) == [task_name(name) for name in published["test"]]


def test_real_files_are_tasks_with_t5s_vocabulary(shared_data):
    t5 = vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model")
    register(shared_data / "crossfit", t5)
    assert len(TaskTable.of("crossfit_train")) == 15
    assert TaskTable.of("crossfit_test").names == (
        "crossfit_blimp_sentential_negation_npi_licensor_present",
        "crossfit_blimp_sentential_negation_npi_scope",
        "crossfit_circa",
        "crossfit_glue_qnli",
    )
    row = rows("crossfit_sms_spam", "train_100", {"inputs": 512, "targets": 64})[1]
    assert t5.decode(row["inputs"].tolist()) == "[sms_spam] What about this one then."
    # T5's vocabulary drops the blank before the target.
    assert row["targets"].tolist() == [*t5.encode("ham"), 1]
    assert len(rows("crossfit_sms_spam", "train")) == 80
