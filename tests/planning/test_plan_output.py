"""What `poly-jax plan --program=both --search` prints and writes, for a tiny T5 on one simulated chip."""

import contextlib
import dataclasses
import html
import io
import json
import pathlib
import re

import pytest

from poly_jax import cli
from poly_jax.planning import planning, search
from poly_jax.planning.peaks import PEAKS
from poly_jax.planning.plan import make_plan

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "planning.md").read_text()
HBM = 16 * 2**20
RECIPE = """
include 'models/t5_1_1_tiny.gin'
include 'adapters/lora.gin'
include 'routers/mhr.gin'
include 'runs/multitask.gin'
T5Config.vocab_size = 64
T5Config.emb_dim = 16
T5Config.num_heads = 2
T5Config.head_dim = 8
T5Config.mlp_dim = 24
T5Config.num_encoder_layers = 1
T5Config.num_decoder_layers = 1
Adapters.sites = ('encoder/attention/query',)
Adapters.n_splits = 2
Data.mixture = %MIXTURE
MIXTURE = %gin.REQUIRED
Data.inputs_length = 24
Data.targets_length = 16
Data.batch_size = 64
Decoding.max_length = 4
evaluate.batch_size = 512
train.steps = 100
"""
BOTH = ("--program=both", "--search")


@pytest.fixture(scope="module")
def compiled():
    """The plan of each program and batch size that has been compiled, none of which is compiled again."""
    return {}


@pytest.fixture(scope="module")
def planned(tmp_path_factory, compiled):
    """A function that runs `poly-jax plan` in one folder, and returns what it prints and writes as HTML.

    A chip has little memory, so that few sizes are tried.
    """
    folder = tmp_path_factory.mktemp("planned")
    (folder / "recipe.gin").write_text(RECIPE)

    def run(*flags: str) -> tuple[str, str]:
        words = ["plan", "--gin_file=recipe.gin", "--topology=v5e:1x1", "--tasks=5", "--simulate"]
        printed = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            assert cli.main([*words, "--html=plan.html", *flags]) == 0
        return printed.getvalue(), (folder / "plan.html").read_text()

    with pytest.MonkeyPatch.context() as patch:

        def plan_once(run, table, accelerators, program="train", rows=0):
            key = (program, rows if program == "decode" else run.data.batch_size)
            if key not in compiled:
                compiled[key] = make_plan(run, table, accelerators, program, rows)
            return compiled[key]

        for module in (planning, search):
            patch.setattr(module, "make_plan", plan_once)
        patch.setattr("poly_jax.planning.environment.prepare_environment", lambda simulated=0: None)
        patch.setitem(PEAKS, "v5e", dataclasses.replace(PEAKS["v5e"], hbm_bytes=HBM))
        yield run


@pytest.fixture(scope="module")
def fields(planned):
    return json.loads(planned(*BOTH, "--format=json")[0])


def documented(text: str) -> list[str]:
    """The names in code in a sentence of the page."""
    return re.findall(r"`(\w+)`", text)


@pytest.mark.slow
def test_the_json_has_the_fields_of_the_page_for_each_program(fields):
    told = PAGE[PAGE.index("With `--format=json`") : PAGE.index("With `--program=both`")]
    assert list(fields) == ["train", "decode"]
    kinds, parts = re.findall(r"\(([^)]*`[^)]*)\)", told)[:2]
    names = documented(re.sub(r"\([^)]*\)", "", told))
    for found in fields.values():
        assert list(found) == names
        assert list(found["bytes_per_chip"]) == documented(kinds)
        assert (found["topology"], found["chips"], found["hosts"], found["hbm_bytes"]) == (
            "v5e:1x1",
            1,
            1,
            HBM,
        )
        held = found["bytes_per_chip"]
        assert held["peak"] == sum(held.values()) - held["peak"]
        assert (found["collectives"], found["fits"]) == ([], True)
        # https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16.
        assert found["seconds_at_peak"] == pytest.approx(found["dot_flops_per_chip"] / 197e12)
    assert documented(parts) == ["kind", "count", "bytes", "shape", "source", "network"]


@pytest.mark.slow
def test_a_prediction_has_no_optimizer_and_the_same_weights(fields):
    train, decode = (fields[name]["bytes_per_chip"] for name in ("train", "decode"))
    assert (decode["frozen"], decode["trained"]) == (train["frozen"], train["trained"])
    assert train["optimizer"] > 2 * train["trained"]
    assert decode["optimizer"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train", "decode"])
def test_the_largest_batch_fits_and_one_that_is_a_32nd_larger_does_not(compiled, fields, program):
    sizes = {size: plan.fits for (kind, size), plan in compiled.items() if kind == program}
    largest = fields[program]["largest_batch_per_chip"]
    assert sizes[largest]
    assert min(size for size, fits in sizes.items() if not fits) <= largest + max(1, largest // 32)
    assert len(sizes) <= 1 + 5


@pytest.mark.slow
def test_the_text_and_the_page_say_what_the_json_says(planned, fields):
    text, page = planned(*BOTH)
    shown = html.unescape(re.sub(r"<[^>]*>", "\n", page))
    for program, what in (
        ("train", "training step of 64 rows"),
        ("decode", "prediction of a batch of 512 rows"),
    ):
        found = fields[program]
        mib = found["bytes_per_chip"]["peak"] / 2**20
        largest = f"{found['largest_batch_per_chip']:,.0f}"
        for line in (
            f"v5e:1x1: 1 chip, 1 host; mesh data 1 x fsdp 1 x model 1; {what}",
            f"It fits: {HBM / 2**20 - mib:.1f} MiB of 16.0 MiB a chip are free.",
            f"Matrix products: {found['dot_flops_per_chip'] / 1e9:,.1f} GFLOP a chip",
            f"Largest batch that fits on this mesh: {largest} rows, {largest} a chip.",
        ):
            assert line in text
            assert line in shown
    assert text.count("memory of a chip") == page.count("<caption>memory of a chip</caption>") == 2
    for name, value in fields["train"]["bytes_per_chip"].items():
        assert re.search(rf"│ {name} +│ +{re.escape(_size(value))} │", text), name


def _size(count):
    return f"{count / 2**20:.1f} MiB" if count else "0"


@pytest.mark.slow
def test_without_a_search_no_largest_batch_is_told(planned, fields):
    text, page = planned("--program=both")
    assert "Largest batch" not in text + page
    found = json.loads(planned("--program=both", "--format=json")[0])
    assert [each.pop("largest_batch_per_chip") for each in found.values()] == [None, None]
    assert found == {
        program: {name: value for name, value in each.items() if name != "largest_batch_per_chip"}
        for program, each in fields.items()
    }
