"""Sweeps over tasks, methods and seeds, from end to end."""

import dataclasses
import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from poly_jax import cli
from poly_jax.configuration import Configuration
from poly_jax.errors import UserError
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.sweep import run_sweep
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.open_run import open_run
from poly_jax.training.run_folder import locked
from poly_jax.training.train import train

TASKS = [registered_name(task.name) for task in benchmark().heldout[:2]]
SHORT = ("adapt.steps = 2", "adapt.batch_size = 4")
SEARCH = "SearchedWeights.evaluations = 1"


def sweep(short_runs, folder, *methods, tasks=TASKS, seeds=(0, 1), bindings=SHORT, gin_files=(), **settings):
    found = [Method(short_runs[run], variant, **own) for run, variant, own in methods]
    return run_sweep.sweep(
        str(folder), Configuration(gin_files, bindings), tasks=tasks, methods=found, seeds=seeds, **settings
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_sweep_writes_results_tables_and_a_plot_and_computes_nothing_twice(
    short_runs, tmp_path, monkeypatch
):
    methods = [("mhr", "mhr-z", {}), ("private", "lorahub", {"name": "hub"})]
    file = tmp_path.with_suffix(".gin")
    file.write_text(SEARCH)
    settings = {"gin_files": (str(file),)}
    summary = sweep(short_runs, tmp_path, *methods, **settings)
    assert summary.methods == ("mhr mhr-z", "hub")
    assert summary.tasks == tuple(TASKS)
    first = lines(tmp_path)
    assert len(first) == 8
    assert all(set(line["result"]["metrics"]) == {"exact_match"} for line in first)
    assert {line["result"]["steps"] for line in first if line["key"]["method"] == "hub"} == {0}
    assert "| mhr mhr-z |" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "summary.tex").exists()
    assert (tmp_path / "summary.png").exists()

    computed = []
    adapt_many = run_sweep.Adapting.results

    def counted(self, jobs, *args):
        (label,) = {job.method.label for job in jobs}
        computed.append((label, [(job.cell.column, job.cell.seed) for job in jobs]))
        return adapt_many(self, jobs, *args)

    monkeypatch.setattr(run_sweep.Adapting, "results", counted)
    # Simulate a sweep that was stopped after five adaptations, in the middle of a line.
    text = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(text[:5]) + text[5][:30])
    again = sweep(short_runs, tmp_path, *methods, **settings)
    assert computed == [("hub", [(TASKS[0], 1), (TASKS[1], 0), (TASKS[1], 1)])]
    assert again.rows == summary.rows
    # Add one more seed, then change the number of steps.
    computed.clear()
    sweep(short_runs, tmp_path, methods[0], seeds=(0, 1, 2), stack=1, **settings)
    assert computed == [("mhr mhr-z", [(task, 2)]) for task in TASKS]
    computed.clear()
    named = {"tasks": TASKS[:1], "seeds": (0,), "metric": "exact_match"}
    sweep(short_runs, tmp_path, ("mhr", "mhr-z", {"steps": 1}), **named)
    assert computed == [("mhr mhr-z", [(TASKS[0], 0)])]


@pytest.mark.slow
def test_a_setting_that_one_of_the_methods_reads_is_taken(short_runs, tmp_path):
    methods = [("mhr", "mhr-z", {}), ("private", "lorahub", {})]
    taken = sweep(short_runs, tmp_path, *methods, tasks=TASKS[:1], seeds=(0,), bindings=(*SHORT, SEARCH))
    assert len(taken.rows) == 2


@pytest.mark.slow
def test_a_second_sweep_in_a_folder_says_so_and_writes_nothing(short_runs, tmp_path):
    with (
        locked(epath.Path(tmp_path)),
        pytest.raises(UserError, match=r"another program is working in .*; wait until it ends"),
    ):
        sweep(short_runs, tmp_path, ("mhr", "mhr-z", {}))
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.slow
def test_a_method_that_diverges_ends_the_sweep_when_the_others_are_scored(short_runs, tmp_path):
    methods = [
        ("mhr", "mhr-mu", {"name": "wild", "steps": 4, "learning_rate": 1e38}),
        ("mhr", "mhr-mu", {"name": "mild"}),
    ]
    with pytest.raises(UserError, match=r"wild, .*, seed 0: the loss of step [2-4] is not finite; give"):
        sweep(short_runs, tmp_path, *methods, tasks=TASKS[:1], seeds=(0,))
    assert [line["key"]["method"] for line in lines(tmp_path)] == ["mild"]


@pytest.fixture(scope="module")
def thin_run(short_runs, tmp_path_factory):
    """A run like that of `short_runs`, whose skills have a smaller rank."""
    loaded = Configuration((), ("LoRA.rank = 2",)).load(run=short_runs["mhr"])
    folder = str(tmp_path_factory.mktemp("runs") / "thin")
    train(**loaded.arguments("train", output_dir=folder))
    return folder


@pytest.mark.slow
def test_methods_with_other_rates_steps_ranks_and_variants_share_a_program_and_keep_their_results(
    short_runs, thin_run, tmp_path, monkeypatch
):
    runs = {**short_runs, "thin": thin_run}
    methods = [
        ("mhr", "mhr-z", {"name": "slow", "router_learning_rate": 0.01}),
        ("mhr", "mhr", {"name": "long", "steps": 3}),
        ("thin", "mhr", {"name": "thin"}),
        ("mhr", "mhr-mu", {"name": "average"}),
    ]
    programs = []
    results = run_sweep.Adapting.results

    def counted(self, jobs, *args):
        programs.append(sorted({job.method.label for job in jobs}))
        return results(self, jobs, *args)

    monkeypatch.setattr(run_sweep.Adapting, "results", counted)
    sweep(runs, tmp_path / "together", *methods, seeds=(0,))
    assert programs == [["long", "slow", "thin"], ["average"]]
    together = {line["key"]["method"]: line["result"] for line in lines(tmp_path / "together")[::-1]}
    assert {name: result["steps"] for name, result in together.items()} == {
        "slow": 2,
        "long": 3,
        "thin": 2,
        "average": 2,
    }
    for method in methods[:3]:
        folder = tmp_path / method[2]["name"]
        sweep(runs, folder, method, seeds=(0,), tasks=TASKS[:1])
        (alone,) = (line["result"] for line in lines(folder))
        shared = together[method[2]["name"]]
        assert shared["metrics"] == alone["metrics"]
        assert shared["trained"] == alone["trained"]
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-4)


def test_adaptations_whose_examples_have_other_lengths_have_a_program_of_their_own():
    def job(task, inputs, targets):
        rows = {
            "encoder_input_tokens": np.zeros((4, inputs), np.int32),
            "decoder_target_tokens": np.zeros((4, targets), np.int32),
        }
        settings = SimpleNamespace(variant=SimpleNamespace(trainable="all"))
        return SimpleNamespace(
            task=task, program="equal", steps=2, settings=settings, examples=lambda _: rows
        )

    jobs = [job("a", 64, 16), job("b", 128, 16), job("c", 64, 16), job("d", 64, 32)]
    groups = run_sweep._sharing(jobs, None)
    assert [[job.task for job in group] for group in groups] == [["a", "c"], ["b"], ["d"]]


@pytest.mark.slow
def test_routers_alone_are_trained_on_skills_that_a_program_shares(
    short_runs, thin_run, tmp_path, monkeypatch
):
    programs = []

    def listed(self, jobs, *args):
        programs.append([job.method.label for job in jobs])
        return iter(())

    monkeypatch.setattr(run_sweep.Adapting, "results", listed)
    methods = [("mhr", "mhr-z", {"name": "wide"}), ("thin", "mhr-z", {"name": "thin"})]
    with pytest.raises(AssertionError):  # Nothing was scored.
        sweep({**short_runs, "thin": thin_run}, tmp_path, *methods, seeds=(0,), tasks=TASKS[:1])
    assert programs == [["wide"], ["thin"]]


@pytest.mark.slow
def test_a_run_that_was_trained_on_other_weights_is_not_adapted_on_those_of_the_first(
    short_runs, thin_run, tmp_path, monkeypatch
):
    def opened(folder, experiment):
        run = open_run(folder, experiment)
        if folder != thin_run:
            return run
        return dataclasses.replace(run, origin=dataclasses.replace(run.origin, backbone_hash="0" * 64))

    monkeypatch.setattr(run_sweep, "open_run", opened)
    methods = [("mhr", "mhr", {}), ("thin", "mhr", {})]
    with pytest.raises(UserError, match=r"is not the backbone that .*thin.* was trained on"):
        sweep({**short_runs, "thin": thin_run}, tmp_path, *methods, seeds=(0,), tasks=TASKS[:1])


@pytest.mark.slow
def test_the_score_equals_that_of_adapt_followed_by_eval(short_runs, tmp_path):
    bindings = (
        "adapt.steps = 3",
        "adapt/Optimizer.learning_rate = 0.03",
        "adapt/Optimizer.warmup_fraction = 0.0",
    )
    sweep(short_runs, tmp_path / "sweep", ("mhr", "mhr", {}), tasks=TASKS[:1], seeds=(7,), bindings=bindings)
    (line,) = lines(tmp_path / "sweep")
    flags = [f"--gin.{binding.replace(' = ', '=')}" for binding in bindings]
    one = tmp_path / "one"
    words = ["adapt", f"--run={short_runs['mhr']}", f"--task={TASKS[0]}", f"--output_dir={one}", "--seed=7"]
    assert cli.main([*words, *flags, "--gin.adapt.report_every=1"]) == 0
    assert cli.main(["eval", f"--run={one}"]) == 0
    (metrics,) = (one / "eval").glob("*/metrics.json")
    assert line["result"]["metrics"] == json.loads(metrics.read_text())[TASKS[0]]
    last = json.loads((one / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["result"]["loss"] == pytest.approx(last["loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("methods", "settings", "message"),
    [
        ([("mhr", "shared", {})], {}, r"has 8 skills; use 'mhr', 'mhr-z' or 'mhr-mu'"),
        # Both names stand for the same variant, so there would be one row.
        ([("mhr", "poly", {}), ("mhr", "mhr", {})], {}, r"have the names mhr mhr, mhr mhr; give each"),
        ([("private", "mhr-mu", {})], {}, r"needs skills that tasks share"),
        ([("mhr", "nothing", {})], {}, r"variant 'nothing' is not known"),
        ([("mhr", "mhr", {}), ("mhr", "mhr", {"steps": 3})], {}, r"give each its own Method.name"),
        ([("mhr", "mhr", {})], {"split": "dev"}, r"has no split 'dev'; it has test, train"),
        ([("mhr", "mhr", {})], {"tasks": ["skillbench_heldout"]}, r"is a mixture"),
        ([("mhr", "mhr", {})], {"batch_size": 0}, r"sweep.batch_size is 0; it must be at least 1"),
        ([("mhr", "mhr", {})], {"tasks": []}, r"sweep.tasks is \(\); give at least one"),
        ([("mhr", "mhr", {})], {"seeds": (1, 1)}, r"sweep.seeds is \(1, 1\)"),
        (
            [("mhr", "mhr", {"name": "a"})] * 2,
            {},
            r"methods is \('a=.*:mhr', 'a=.*'\); give .* each once",
        ),
        ([("mhr", "mhr", {})], {"seeds": (0, -1)}, r"a seed of sweep.seeds is -1; it must be a whole number"),
        # JAX would draw the numbers of seed 0.
        ([("mhr", "mhr", {})], {"seeds": (2**32,)}, r"is 4294967296; it must be .* from 0 to 4294967295"),
        (
            [("mhr", "mhr", {})],
            {"bindings": ("adapt.init_router_from = ('skillbench_abc',)",)},
            r"adapt.init_router_from is bound, which a sweep does not read; bind Method.init_router_from",
        ),
        (
            [("mhr", "mhr", {})],
            {"bindings": ("adapt.seed = 3",)},
            r"--gin.adapt.seed is given, which a sweep does not read; give its seeds with --seeds",
        ),
        (
            [("mhr", "mhr", {}), ("mhr", "mhr-z", {})],
            {"bindings": (SEARCH,)},
            r"SearchedWeights.evaluations is given, and this configuration does not use SearchedWeights",
        ),
        (
            [("mhr", "mhr", {})],
            {"metric": "bleu"},
            rf"task '{TASKS[0]}' has no metric 'bleu'; it has exact_match",
        ),
    ],
)
def test_a_mistake_is_reported_before_anything_is_computed(short_runs, tmp_path, methods, settings, message):
    with pytest.raises(UserError, match=message):
        sweep(short_runs, tmp_path / "sweep", *methods, **settings)
    assert not (tmp_path / "sweep").exists()


def test_settings_of_methods_are_refused_where_the_command_line_gives_the_methods(
    short_runs, tmp_path, capsys
):
    words = ["sweep", "--methods", f"{short_runs['mhr']}:mhr", "--tasks", TASKS[0]]
    assert cli.main([*words, f"--output_dir={tmp_path / 'sweep'}", "--gin.Method.steps=5"]) == 1
    assert "Method.steps is bound, and --methods says the run and the variant" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_does_not_write_into_the_folder_of_a_run(short_runs):
    run = short_runs["mhr"]
    before = sorted(path.name for path in pathlib.Path(run).iterdir())
    with pytest.raises(UserError, match=rf"{run} holds a training run; give `poly-jax sweep` another folder"):
        sweep(short_runs, run, ("mhr", "mhr", {}))
    assert sorted(path.name for path in pathlib.Path(run).iterdir()) == before


def test_a_run_does_not_write_into_the_folder_of_a_sweep(short_runs, tmp_path, capsys):
    key = {"method": "m", "task": "t", "seed": 0, "setup": "0"}
    ResultsFile(tmp_path / "results.jsonl").add(key, {"metrics": {}})
    words = ["adapt", f"--run={short_runs['mhr']}", f"--task={TASKS[0]}", f"--output_dir={tmp_path}"]
    assert cli.main([*words, "--gin.adapt.steps=1"]) == 1
    assert f"{tmp_path} exists and holds no run of this program" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize("metrics", [None, {}, [1.0], {"accuracy": "high"}])
def test_a_stored_result_without_scores_is_reported_by_name(metrics):
    with pytest.raises(UserError, match=r"task 'x', seed 7, whose metrics are not numbers; delete the line"):
        run_sweep._check_known({"metrics": metrics}, Cell("x", 7), "runs/sweep")


def test_two_tasks_with_the_same_name_in_tables_are_refused(tmp_path):
    methods = [Method("no run", "mhr")]
    with pytest.raises(
        UserError, match=r"has 'x' and 'x_\{seed\}', which are both 'x' in tables and results"
    ):
        run_sweep.sweep(
            str(tmp_path), Configuration((), ()), tasks=["x", "x_{seed}"], methods=methods, seeds=(0,)
        )
    # The same holds if one of them already has results in the folder. Results without a task are accepted.
    seeded = Cell("x_{seed}", 7)
    for fine in (None, {"metrics": {"a": 1.0}}, {"metrics": {"a": 1.0}, "seqio_task": "x_7"}):
        run_sweep._check_known(fine, seeded, "runs/sweep")
    with pytest.raises(
        UserError, match=r"runs/sweep has results of task 'x' under the name 'x', .* 'x_7' now"
    ):
        run_sweep._check_known({"metrics": {"a": 1.0}, "seqio_task": "x"}, seeded, "runs/sweep")
