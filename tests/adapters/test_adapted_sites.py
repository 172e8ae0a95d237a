"""The adapted sites of a model, where its routers are, and settings that are refused at the start."""

import re

import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.t5_dimensions import sites

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    head_dim=12,
    mlp_dim=40,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
ATTENTIONS = ["encoder/attention", "decoder/self_attention", "decoder/encoder_decoder_attention"]
MLPS = ["encoder/mlp", "decoder/mlp"]
# T5 v1.1's linear maps, by hand.
ALL_SITES = {f"{name}/{x}" for name in ATTENTIONS for x in ("query", "key", "value", "out")} | {
    f"{name}/{x}" for name in MLPS for x in ("wi_0", "wi_1", "wo")
}


def adapters(**settings):
    return Adapters(**{"skill": LoRA(), "router": LearnedRouter(), "n_tasks": 5, "n_skills": 3, **settings})


def shapes(config=CONFIG, **settings):
    tree, _ = parameter_shapes(Transformer(config, adapters(**settings)))
    return {name: leaf.shape for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def adapted(names):
    """Site paths that have skills, and in how many layers each."""
    found: dict[str, int] = {}
    for name in names:
        match = re.fullmatch(r"(\w+)/layers_\d/(\w+/\w+)/skills/lora_a", name)
        if match:
            site = f"{match[1]}/{match[2]}"
            found[site] = found.get(site, 0) + 1
    return found


def routers(names):
    return {name.removesuffix("/router/logits") for name in names if name.endswith("router/logits")}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((".*",), ALL_SITES),
        ("encoder/attention/query", {"encoder/attention/query"}),
        ((".*/query", ".*/wo"), {f"{name}/query" for name in ATTENTIONS} | {f"{name}/wo" for name in MLPS}),
        ((r".*/(key|value|wi_1)",), {s for s in ALL_SITES if s.split("/")[-1] in ("key", "value", "wi_1")}),
        (("decoder/.*",), {s for s in ALL_SITES if s.startswith("decoder/")}),
        ((".*/encoder_decoder_attention/.*",), {s for s in ALL_SITES if "encoder_decoder" in s}),
        ((".*/mlp/.*", "encoder/.*/out"), {s for s in ALL_SITES if "/mlp/" in s} | {"encoder/attention/out"}),
    ],
)
def test_skills_and_routers_are_at_exactly_the_matched_sites_of_every_layer(patterns, expected):
    names = shapes(sites=patterns)
    assert adapted(names) == dict.fromkeys(expected, 2)
    at_sites = {f"{s.split('/')[0]}/layers_{i}/{s.split('/', 1)[1]}" for s in expected for i in range(2)}
    assert routers(names) == at_sites


def test_every_single_site_can_be_adapted_alone():
    assert set(sites(CONFIG)) == ALL_SITES
    for site in ALL_SITES:
        assert {name for name in ALL_SITES if adapters(sites=site).adapts(name)} == {site}


def test_the_ungated_mlp_has_one_input_site():
    config = T5Config(**{**vars(CONFIG), "mlp_activations": ("relu",)})
    assert "encoder/mlp/wi" in sites(config)
    assert adapted(shapes(config, sites=".*/mlp/.*")) == dict.fromkeys(
        ["encoder/mlp/wi", "encoder/mlp/wo", "decoder/mlp/wi", "decoder/mlp/wo"], 2
    )


def test_skills_have_the_shapes_of_their_site():
    found = shapes(n_splits=4, skill=LoRA(rank=2))
    assert found["encoder/layers_0/attention/query/skills/lora_a"] == (4, 3, 16 // 4, 2)
    assert found["encoder/layers_0/attention/query/skills/lora_b"] == (4, 3, 2, 24 // 4)
    assert found["decoder/layers_1/mlp/wo/skills/lora_a"] == (4, 3, 40 // 4, 2)
    assert found["decoder/layers_1/mlp/wo/skills/lora_b"] == (4, 3, 2, 16 // 4)
    assert found["decoder/layers_1/mlp/wo/router/logits"] == (5, 4, 3)
    assert shapes(n_splits=4, skill=IA3())["encoder/layers_1/mlp/wi_0/skills/ia3"] == (4, 3, 40 // 4)


@pytest.mark.parametrize(
    ("granularity", "count", "example"),
    [
        ("fine", 36, "decoder/layers_1/encoder_decoder_attention/key"),
        ("layer", 10, "decoder/layers_0/mlp"),
        ("block", 4, "encoder/layers_1"),
        ("stack", 2, "encoder"),
        ("coarse", 1, "router/logits"),
    ],
)
def test_granularity_sets_the_number_of_routers(granularity, count, example):
    names = shapes(granularity=granularity)
    found = routers(names)
    assert len(found) == count
    assert example in found
    assert adapted(names) == dict.fromkeys(ALL_SITES, 2)


def test_a_router_is_made_only_where_an_adapted_site_lies_below():
    assert routers(shapes(granularity="stack", sites="encoder/.*")) == {"encoder"}
    assert routers(shapes(granularity="layer", sites=".*/mlp/wo")) == {
        f"{stack}/layers_{i}/mlp" for stack in ("encoder", "decoder") for i in range(2)
    }


@pytest.mark.parametrize(
    ("router", "size"), [(SharedRouter(), 1), (AverageRouter(), 3), (PrivateRouter(), 5)]
)
def test_fixed_routers_have_no_parameters_and_set_the_size_of_the_inventory(router, size):
    names = shapes(router=router)
    assert not routers(names)
    assert adapted(names) == dict.fromkeys(ALL_SITES, 2)
    assert names["encoder/layers_0/mlp/wo/skills/lora_a"] == (1, size, 40, 1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sites": ()}, "Adapters.sites is empty; choose from encoder/attention/query"),
        ({"sites": ".*/qeury"}, r"'\.\*/qeury', which matches no site"),
        ({"sites": "query"}, "'query', which matches no site"),
        ({"sites": (".*/query", "encoder/[")}, r"'encoder/\[', not a regular expression"),
        ({"n_splits": 5}, "n_splits is 5, which does not divide the width 16 of encoder/attention/query"),
        # Both stacks' widths are 16, 24 and 40.
        ({"n_splits": 16}, "n_splits is 16, which does not divide the width 24 .*; use a divisor of 8,"),
        ({"router": LearnedRouter(scores="softmax", top_k=4)}, "top_k is 4, but the inventory has 3 skills"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused_before_anything_runs(settings, named):
    with pytest.raises(UserError, match=named) as caught:
        adapters(**settings).check(sites(CONFIG))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=named):
        parameter_shapes(Transformer(CONFIG, adapters(**settings)))


def test_n_splits_need_not_divide_the_width_of_a_site_that_is_not_adapted():
    # 24 = heads * head_dim is not divisible by 16, but the MLP's 16 and 48 are.
    config = T5Config(**{**vars(CONFIG), "mlp_dim": 48})
    adapters(n_splits=16, sites=".*/mlp/.*").check(sites(config))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"granularity": "token"}, "granularity is 'token'; use one of fine, layer, block, stack, coarse"),
        ({"n_tasks": 0}, "n_tasks is 0"),
        ({"n_skills": 0}, "n_skills is 0"),
        ({"n_splits": -1}, "n_splits is -1"),
    ],
)
def test_settings_out_of_range_are_reported_by_name(settings, named):
    with pytest.raises(UserError, match=named):
        adapters(**settings)
