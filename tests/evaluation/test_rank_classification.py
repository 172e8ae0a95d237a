"""Tasks with answer choices are adapted to with `ChoiceLoss` and evaluated by ranking the choices."""

import json
import pathlib

import numpy as np
import pytest

from poly_jax.data import vocabularies
from poly_jax.data.batches import eval_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.evaluate import evaluate
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.model.choices import choice_scores
from poly_jax.tasks.t0_few_shot import register, tasks
from poly_jax.training.optimizer import Optimizer
from poly_jax.transfer.adapt import adapt
from poly_jax.transfer.zero_shot import averaged

TEMPLATES = """
templates:
  u: !Template
    answer_choices: '{{choice1}} ||| {{choice2}}'
    jinja: '{{premise}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: plain
  v: !Template
    answer_choices: '{{choice2}} ||| {{choice1}}'
    jinja: '{{premise}}! ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: swapped
"""


@pytest.fixture(scope="module")
def choosing(tmp_path_factory):
    """A short COPA, `choosing_copa`: 4 examples to adapt to, 7 to evaluate on, 2 templates."""
    folder = tmp_path_factory.mktemp("t0")
    draw = np.random.default_rng(0)

    def lines(count):
        words = ["".join(draw.choice(list("abcdef"), 2 + n % 3)) for n in range(3 * count)]
        return "".join(
            json.dumps({"premise": a, "choice1": b, "choice2": c, "label": n % 2, "idx": n}) + "\n"
            for n, (a, b, c) in enumerate(zip(words[::3], words[1::3], words[2::3], strict=True))
        )

    for name, text in {
        "promptsource_templates/super_glue/copa/templates.yaml": TEMPLATES,
        "few_shot/copa/4_shot/42_seed.jsonl": lines(4),
        "validation/copa.jsonl": lines(7),
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    before = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    register(folder, vocabularies.byte(), prefix="choosing", evaluation_templates="all")
    yield "choosing_copa"
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = before
    del tasks._registered["choosing"]


def test_the_accuracy_is_that_of_ranking_the_choices_by_the_models_scores(run, choosing):
    metrics = evaluate(
        run.folder,
        run.experiment,
        mixture=choosing,
        split="validation",
        zero_shot=True,
        batch_size=4,
        output_dir="out",
    )
    table = TaskTable.of(choosing)
    batches = eval_batches(
        choosing,
        table,
        split="validation",
        sequence_length=run.experiment.data.sequence_length,
        batch_size=14,
        choices=True,
    )
    (batch,) = batches
    restored = averaged(run.restored, table)
    scores = choice_scores(
        restored.model,
        restored.parameters,
        batch["encoder_input_tokens"],
        batch["choices"],
        batch["task_ids"],
    )
    predicted = np.argmax(scores, axis=-1)
    hits = 100 * (predicted == batch["labels"]).reshape(7, 2)
    assert 0 < hits.mean() < 100
    assert metrics[choosing]["accuracy"] == pytest.approx(hits.mean())
    assert metrics[choosing]["median_accuracy"] == pytest.approx(np.median(hits.mean(axis=0)))
    records = [
        json.loads(line)
        for line in pathlib.Path(f"out/predictions/{choosing}.jsonl").read_text().splitlines()
    ]
    assert [record["target"]["label"] for record in records] == batch["labels"].tolist()
    assert [record["target"]["tokens"] for record in records] == (batch["choices"] > 0).sum(-1).tolist()
    best = [np.argmax(np.divide(record["score"], record["target"]["tokens"])) for record in records]
    assert best == predicted.tolist()


def likelihoods(folder, task):
    """Log-probabilities of the right choices."""
    lines = pathlib.Path(f"{folder}/predictions/{task}.jsonl").read_text().splitlines()
    return np.array([record["score"][record["target"]["label"]] for record in map(json.loads, lines)])


@pytest.mark.slow
def test_a_task_is_adapted_to_with_choice_loss_and_evaluated_with_its_own_adapters(run, choosing):
    state = adapt(
        run.folder,
        choosing,
        "adapted",
        experiment=run.experiment,
        steps=20,
        batch_size=4,
        optimizer=Optimizer(learning_rate=0.05, router_learning_rate=0.1),
        loss=ChoiceLoss(),
        report_every=1,
        texts=run.texts,
    )
    assert int(state.step) == 20
    reports = [json.loads(line) for line in pathlib.Path("adapted/metrics.jsonl").read_text().splitlines()]
    for report in reports:
        terms = [report[name] for name in ("lm", "multiple_choice", "unlikelihood")]
        assert report["loss"] == pytest.approx(sum(terms), rel=1e-5)
    losses = [report["loss"] for report in reports]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    adapted = evaluate("adapted", run.experiment, mixture=choosing, split="train", output_dir="after")
    averaged = evaluate(
        run.folder, run.experiment, mixture=choosing, split="train", zero_shot=True, output_dir="before"
    )
    names = {"accuracy", "median_accuracy", "interquartile_range"}
    assert set(adapted[choosing]) == set(averaged[choosing]) == names
    after, before = (likelihoods(folder, choosing) for folder in ("after", "before"))
    assert after.mean() > before.mean() + 1


def test_a_task_without_choices_is_refused_before_anything_is_written(run):
    with pytest.raises(UserError, match="ChoiceLoss needs examples with answer choices"):
        adapt(
            run.folder,
            "evaluation_a",
            "adapted",
            experiment=run.experiment,
            loss=ChoiceLoss(),
            batch_size=4,
            texts=run.texts,
        )
    assert not pathlib.Path("adapted").exists()
