"""The variant of docs/new_variant.md: its file and its gin lines are enough to adapt a run with it."""

import dataclasses
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.errors import UserError
from poly_jax.training.saved_step import open_trained
from poly_jax.training.saved_steps import step_folder
from poly_jax.transfer.gradient_free_search import SearchedWeights
from poly_jax.transfer.new_adapters import new_adapters
from poly_jax.transfer.settings import configured
from poly_jax.transfer.variants import VARIANTS, Variant, find, register

pytestmark = pytest.mark.usefixtures("own_folder")

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def page(tmp_path, monkeypatch, page_block):
    """The page's two files in the current folder. Afterwards the variant is removed from the registry."""
    (tmp_path / "my_variant.py").write_text(page_block("new_variant", "python"))
    (tmp_path / "my_variant.gin").write_text(page_block("new_variant", "gin"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    VARIANTS.pop("lorahub-trained", None)
    sys.modules.pop("my_variant", None)


@pytest.mark.slow
def test_the_command_on_the_page_adapts_a_run_with_the_variant_on_it(page, short_runs, capsys):
    text = (ROOT / "docs" / "new_variant.md").read_text()
    (printed,) = re.findall(r"^    poly-jax (adapt .*\\\n.*)$", text, re.MULTILINE)
    pathlib.Path("runs").mkdir()
    pathlib.Path("runs/quick").symlink_to(short_runs["mhr"])
    short = ["--gin.adapt.steps=2", "--gin.adapt.report_every=1", "--gin.SearchedWeights.evaluations=1"]
    assert cli.main([*shlex.split(printed.replace("\\\n", "")), *short]) == 0
    told = r"skillbench_txz: 16 examples, lorahub-trained, .* trained"
    assert re.search(told, capsys.readouterr().out)
    out = pathlib.Path("runs/txz_lorahub_trained")
    config = (out / "config.gin").read_text()
    assert "AdaptedFrom.variant = 'lorahub-trained'" in config
    weights = re.search(r"AdaptedFrom\.weights = \\?\s*\((.*?)\)", config, re.DOTALL)
    assert len(re.findall(r"[\d.]+(?:e-\d+)?", weights[1])) == 8
    losses = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses] == [1, 2]
    assert np.isfinite([line["loss"] for line in losses]).all()
    sizes = {tensor.shape[1] for name, tensor in open_trained(step_folder(out)).items() if "skills" in name}
    assert sizes == {1}


def test_a_run_that_does_not_meet_the_variants_requirement_is_refused_with_its_message(page, many):
    import my_variant  # noqa: F401

    adapters = dataclasses.replace(many.model.adapters, n_skills=21)
    told = r"variant 'lorahub-trained' weighs at most 20 skills, and this run has 21; use 'lorahub'"
    with pytest.raises(UserError, match=told):
        new_adapters(find("lorahub-trained"), adapters)
    assert new_adapters(find("lorahub-trained"), many.model.adapters).inventory_size == 1


def test_bound_settings_replace_those_of_a_variant_and_its_other_settings_stay(tmp_path):
    loaded = configuration.load([], ["SearchedWeights.l1 = 0.5"])
    own = SearchedWeights(evaluations=7, l1=0.1)
    mine = Variant("mine", "combined", "skills", choice=own)
    assert configured(mine, loaded).choice == SearchedWeights(evaluations=7, l1=0.5)
    # A class that a user defines need not be registered with gin.
    other = dataclasses.make_dataclass("Other", [("count", int, 3)], frozen=True)()
    assert configured(dataclasses.replace(mine, choice=other), loaded).choice == other
    # Its name may be that of a registered class.
    other = dataclasses.make_dataclass("SearchedWeights", [("l1", float, 0.2)], frozen=True)()
    assert configured(dataclasses.replace(mine, choice=other), loaded).choice == other


@pytest.mark.parametrize(
    ("skills", "trainable", "told"),
    [
        ("keept", "skills", "has skills 'keept'; use one of kept, combined, fresh, none"),
        ("kept", "rows", "has trainable 'rows'; use one of adapters, skills, router, all"),
    ],
)
def test_a_misspelt_field_is_reported_with_the_possible_values(skills, trainable, told):
    with pytest.raises(UserError, match=f"variant 'mine' {told}"):
        Variant("mine", skills, trainable)


def test_the_names_of_the_shipped_variants_are_reserved():
    with pytest.raises(UserError, match="variant 'poly-z' is one of poly_jax's own; give yours another name"):
        register(Variant("poly-z", "kept", "router"))
