"""Plans of a tiny run: on one CPU device here, on eight in a process of their own, and for real TPUs."""

import dataclasses
import html.parser
import importlib.util
import json
import math
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from poly_jax.data.example_rows import ExampleRows, Ragged
from poly_jax.data.packing import Example, pack_rows
from poly_jax.data.padded_rows import padded_rows
from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.planning import plan as plan_module
from poly_jax.planning.abstract_run import abstract_batch, table_of, train_program
from poly_jax.planning.collectives import KINDS, Collective
from poly_jax.planning.memory import Memory
from poly_jax.planning.page import page
from poly_jax.planning.plan import Accelerators, make_plan
from poly_jax.planning.report import Report
from poly_jax.planning.suggestion import Estimate, Layout
from poly_jax.planning.texts import work
from poly_jax.training.mesh import Partitioning
from poly_jax.training.start import begin, fresh_start
from poly_jax.training.update import Update

FIELDS = [
    "topology",
    "chips",
    "hosts",
    "hbm_bytes",
    "bytes_per_chip",
    "dot_flops_per_chip",
    "seconds_at_peak",
    "collectives",
    "fits",
    "largest_batch_per_chip",
]
SIMULATED = Accelerators.named("v5e:1x1", simulate=True)


@pytest.fixture(scope="module")
def report(run, planned):
    return Report(planned, run.steps, 0.4, Layout.of(run), Estimate(Layout.of(run), 1e6, 1.0))


def test_the_arguments_of_a_step_are_those_of_a_real_run(run):
    mesh = Partitioning().mesh(jax.devices()[:1])
    _, arguments = train_program(run, table_of(5), mesh)
    model = run.experiment.transformer(table_of(5))
    real = fresh_start(model, "random", "adapters", 0, mesh)
    update = Update(model, run.loss, run.optimizer.transformation(run.steps))

    def forms(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), tree)

    assert forms(arguments.trained) == forms(real.trained)
    assert forms(arguments.frozen) == forms(real.frozen)
    assert forms(arguments.optimizer) == forms(begin(real.trained, update, mesh).optimizer)


def test_the_memory_of_the_state_is_that_of_its_arrays(run, planned):
    # LoRA of rank 1 with 2 skills at the query of two layers, and a router's row for each of 5 tasks.
    sites, skills, splits = 2, 2, 2
    trained = 4 * sites * (skills * (16 + 16) + 5 * splits * skills)
    assert planned.memory.trained == trained
    # Both moments of AdamW; counters beside them.
    assert 2 * trained <= planned.memory.optimizer <= 2 * trained + 64
    assert planned.memory.frozen > 0
    kinds = dataclasses.asdict(planned.memory)
    assert kinds.pop("peak") == sum(kinds.values())


def test_one_chip_sends_nothing_and_repeats_nothing(planned):
    assert planned.collectives == []
    assert planned.fits
    # XLA turns the smallest products into sums, which are not counted.
    assert 0.85 <= planned.compiled_flops_per_chip / planned.dot_flops_per_chip <= 1.001


def test_the_json_has_the_documented_fields(report, planned):
    fields = json.loads(json.dumps(report.fields()))
    assert list(fields) == FIELDS
    assert list(fields["bytes_per_chip"]) == [field.name for field in dataclasses.fields(Memory)]
    assert (fields["topology"], fields["chips"], fields["hosts"]) == ("v5e:1x1", 1, 1)
    # https://cloud.google.com/tpu/docs/v5e
    assert fields["hbm_bytes"] == 16 * 2**30
    assert fields["seconds_at_peak"] == pytest.approx(planned.dot_flops_per_chip / 197e12)
    assert fields["largest_batch_per_chip"] is None


def test_time_and_cost_follow_from_the_share_of_the_peak(report, planned):
    seconds = planned.dot_flops_per_chip / 197e12 / 0.4
    assert report.steps_per_hour == pytest.approx(3600 / seconds)
    assert report.chip_hours == pytest.approx(1000 * seconds / 3600)


@pytest.mark.parametrize(("share", "said"), [(0.9, False), (1.1, True)])
def test_collectives_that_take_longer_than_the_products_are_said(report, planned, share, said):
    # https://cloud.google.com/tpu/docs/v5e: links of 1,600 Gbit/s a chip, half of it in each direction.
    sent = int(share * report.seconds * 100e9)
    gathered = Collective("all-gather", 1, sent, f"f32[{sent // 4}]", "encoder", "ici")
    slow = dataclasses.replace(report, plan=dataclasses.replace(planned, collectives=[gathered]))
    assert ("The collectives take longer" in " ".join(work(slow))) == said


def test_a_plan_that_does_not_fit_says_by_how_much_and_what_would(report, planned):
    gib = 2**30
    large = dataclasses.replace(
        planned,
        fits=False,
        available=int(15.75 * gib),
        memory=dataclasses.replace(planned.memory, peak=int(19.5 * gib), program=None),
        collectives=None,
    )
    better = Layout(fsdp=4, model=2, remat="full", microbatches=2)
    found = dataclasses.replace(report, plan=large, suggestion=Estimate(better, 8 * gib, 1.0))
    assert "needs 19.50 GiB a chip, 3.75 GiB more than the 15.75 GiB" in found.verdict()
    (advice,) = found.advice()
    assert "8.00 GiB a chip by estimate" in advice
    for binding in ("Partitioning.fsdp=4", "Partitioning.model=2", "remat=\"'full'\"", "microbatches=2"):
        assert binding in advice
    assert found.fields()["collectives"] is None
    assert "choose a larger slice" in dataclasses.replace(found, suggestion=None).advice()[0]


def test_a_program_that_jax_cannot_read_names_both_versions(monkeypatch, planned, run):
    def fail(compiled):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", fail)
    monkeypatch.setattr(plan_module, "version", lambda name: {"jaxlib": "0.10.2", "libtpu": "0.0.52"}[name])
    with pytest.raises(
        UserError, match=r"jaxlib 0\.10\.2 cannot read .* libtpu 0\.0\.52 .*pip install '\.\[plan\]'"
    ):
        make_plan(run, table_of(5), planned.accelerators)


def test_the_page_needs_no_other_file_and_is_well_formed(report):
    class Tags(html.parser.HTMLParser):
        open, links = [], []

        def handle_starttag(self, tag, attributes):
            self.links += [value for name, value in attributes if name in ("src", "href")]
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    text = page([report])
    tags.feed(text)
    assert (tags.open, tags.links) == ([], [])
    assert "v5e:1x1: 1 chip, 1 host" in text
    assert "It fits" in text


def test_a_packed_batch_has_the_arrays_that_packing_makes(run):
    data = dataclasses.replace(run.data, packing="best-fit", max_segments=3, batch_size=2)
    made = pack_rows([[Example([5, 1], [6, 1], 0)], [Example([7, 1], [8, 1], 1)]], (12, 10), 3)
    found = abstract_batch(data, Partitioning().mesh(jax.devices()[:1]))
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in made.items()
    }


def test_a_padded_batch_has_the_arrays_that_padding_makes(run):
    size = run.data.batch_size
    texts = Ragged.of([np.array([5, 1])] * size, [np.array([2])] * size)
    rows = ExampleRows(texts, texts, np.zeros(size, np.int32), np.arange(size, dtype=np.int32))
    made = padded_rows(rows, np.arange(size), run.data.sequence_length, 0)
    found = abstract_batch(run.data, Partitioning().mesh(jax.devices()[:1]))
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in made.items()
    }


def test_a_prediction_has_no_optimizer_and_runs_as_long_as_its_decoding(run):
    short = make_plan(run, table_of(5), SIMULATED, "decode", 4)
    assert (short.batch_size, short.memory.optimizer) == (4, 0)
    # The encoder, the keys and values of its output, and a step of the decoder for each of 4 tokens.
    config = run.experiment.model
    d, k, f, inputs = config.emb_dim, config.num_heads * config.head_dim, config.mlp_dim, 12
    mlp = d * f * (len(config.mlp_activations) + 1)
    encoder = config.num_encoder_layers * inputs * (4 * d * k + 2 * inputs * k + mlp) + inputs * 2 * d * k
    step = 6 * d * k + 2 * (4 + inputs) * k + mlp + d * config.vocab_size
    assert short.dot_flops_per_chip == pytest.approx(2 * 4 * (encoder + 4 * step), rel=0.25)


def test_a_loss_over_answer_choices_is_refused(run):
    with pytest.raises(UserError, match="ChoiceLoss has as many targets as the data has answer choices"):
        make_plan(dataclasses.replace(run, loss=ChoiceLoss()), table_of(5), SIMULATED)


def test_gpus_are_refused():
    with pytest.raises(UserError, match="'h100:2x8' has GPUs, and plans are for TPUs"):
        Accelerators.named("h100:2x8")


def test_a_simulation_without_enough_devices_says_how_to_get_them(run):
    accelerators = Accelerators.named("v5e:16x16", simulate=True)
    with pytest.raises(UserError, match=r"needs 256 CPU devices.*set JAX_NUM_CPU_DEVICES=256"):
        make_plan(run, table_of(5), accelerators)


RECIPE = """
include 'models/t5_1_1_tiny.gin'
include 'adapters/lora.gin'
include 'routers/mhr.gin'
include 'runs/multitask.gin'
T5Config.scan_layers = True
T5Config.dtype = 'bfloat16'
T5Config.num_encoder_layers = 3
T5Config.num_decoder_layers = 1
Adapters.sites = ('encoder/attention/query',)
Data.mixture = %MIXTURE
MIXTURE = %gin.REQUIRED
Data.inputs_length = 24
Data.targets_length = 16
Data.batch_size = 16
train.steps = 100
"""


def planned_alone(folder, *flags):
    """Run the command in a process of its own, and return what it prints."""
    (folder / "recipe.gin").write_text(RECIPE)
    command = [sys.executable, "-m", "poly_jax.cli", "plan", "--gin_file=recipe.gin", "--format=json", *flags]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    flags = ("--topology=v5e:2x4", "--simulate", "--tasks=40")
    mesh = ("--gin.Partitioning.fsdp=2", "--gin.Partitioning.model=2")
    return planned_alone(tmp_path_factory.mktemp("sharded"), *flags, *mesh)


def test_a_plan_needs_neither_the_data_nor_what_names_it(sharded):
    assert list(sharded) == FIELDS
    assert (sharded["topology"], sharded["chips"], sharded["hosts"]) == ("v5e:2x4", 8, 1)


def test_the_sharded_step_sends_within_its_layers(sharded):
    counts = {each["count"] for each in sharded["collectives"]}
    # The encoder has three layers.
    assert any(count % 3 == 0 for count in counts)
    assert {each["network"] for each in sharded["collectives"]} == {"ici"}
    assert any("attention" in each["source"] for each in sharded["collectives"])


def test_each_collective_has_the_documented_fields_and_the_bytes_of_its_shape(sharded):
    for each in sharded["collectives"]:
        assert list(each) == ["kind", "count", "bytes", "shape", "source", "network"]
        assert each["kind"] in KINDS
        dtype, sides = re.fullmatch(r"(\w+)\[([\d,]*)\]", each["shape"]).groups()
        size = {"pred": 1, "bf16": 2, "f32": 4, "s32": 4, "u32": 4}[dtype]
        array = math.prod(int(side) for side in sides.split(",") if side) * size
        # An operation may combine several arrays, of which `shape` is the largest.
        assert each["bytes"] >= each["count"] * array > 0


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra `plan`)"
)
def test_a_step_compiles_for_two_slices_of_tpus(tmp_path):
    found = planned_alone(tmp_path, "--topology=v5e:2x2", "--slices=2", "--tasks=8")
    assert (found["chips"], found["hosts"], found["fits"]) == (8, 2, True)
    assert found["bytes_per_chip"]["peak"] < found["hbm_bytes"]
    assert {each["network"] for each in found["collectives"]} == {"ici", "dcn"}
