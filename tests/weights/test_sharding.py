"""The model's programs have sharding constraints whenever there is a mesh, on axes that the mesh divides."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter, PrivateRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.sharding import constrain, mesh_axes, rules_for

ROWS, LENGTH, HEADS, KV, EMBED, MLP, VOCAB, SPLITS, SKILLS = 8, 6, 4, 10, 16, 32, 60, 2, 3
BATCH = ("data", "fsdp")
CONFIG = T5Config(
    vocab_size=VOCAB,
    emb_dim=EMBED,
    num_heads=HEADS,
    head_dim=KV,
    mlp_dim=MLP,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
ADAPTERS = Adapters(
    LoRA(),
    LearnedRouter(sampling=False),
    n_tasks=8,
    n_skills=SKILLS,
    n_splits=SPLITS,
    sites=(".*/attention/query", ".*/mlp/wo"),
)
# Three attentions have three projections each; the adapted sites are one query and two output projections.
EXPECTED = {
    # It is used by the encoder and the decoder.
    ("embedding", PartitionSpec(("model",), None)): 2,
    ("heads", PartitionSpec(BATCH, None, ("model",), None)): 9,
    # Two embedded texts, what five sub-layers add, and the outputs of two layers.
    ("residual", PartitionSpec(BATCH, None, None)): 9,
    ("mlp", PartitionSpec(BATCH, None, ("model",))): 2,
    ("logits", PartitionSpec(BATCH, None, ("model",))): 1,
    # Where they are looked up, and where they mix.
    ("weights", PartitionSpec(BATCH, ("model",), None)): 2 * 3,
    ("skills", PartitionSpec(("model",), None, None, None)): 2 * 3,
    # Each factor is laid out as the side of the kernel that it stands at.
    ("mixed in of embed", PartitionSpec(BATCH, None, None)): 1,
    ("mixed out of heads", PartitionSpec(BATCH, None, ("model",))): 1,
    ("mixed in of mlp", PartitionSpec(BATCH, ("model",), None)): 2,
    ("mixed out of embed", PartitionSpec(BATCH, None, None)): 2,
}
# One mix for all rows has no axis of rows.
SHARED = {
    ("skills", PartitionSpec(("model",), None, None, None)): 2 * 3,
    ("shared in of embed", PartitionSpec(None, None)): 1,
    ("shared out of heads", PartitionSpec(None, ("model",))): 1,
    ("shared in of mlp", PartitionSpec(("model",), None)): 2,
    ("shared out of embed", PartitionSpec(None, None)): 2,
}


def kind_of(shape):
    kinds = {
        (ROWS, LENGTH, HEADS, KV): "heads",
        (ROWS, LENGTH, EMBED): "residual",
        (ROWS, LENGTH, MLP): "mlp",
        (ROWS, LENGTH, VOCAB): "logits",
        (ROWS, SPLITS, SKILLS): "weights",
        (ROWS, 1, 8): "private weights",
        (VOCAB, EMBED): "embedding",
        (ROWS, EMBED, 1): "mixed in of embed",
        (ROWS, MLP, 1): "mixed in of mlp",
        (ROWS, 1, EMBED): "mixed out of embed",
        (ROWS, 1, HEADS * KV): "mixed out of heads",
        (EMBED, 1): "shared in of embed",
        (MLP, 1): "shared in of mlp",
        (1, EMBED): "shared out of embed",
        (1, HEADS * KV): "shared out of heads",
    }
    return kinds.get(shape, "skills" if shape[:2] == (SPLITS, SKILLS) else shape)


def constraints(jaxpr):
    """Count how often a program and its inner programs constrain each kind of array to each layout."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            found[kind_of(equation.invars[0].aval.shape), equation.params["sharding"].spec] += 1
        for inner in jaxprs_in_params(equation.params):
            found += constraints(inner)
    return found


def program(adapters=ADAPTERS, **settings):
    """Count the constraints of the forward pass."""
    model = Transformer(dataclasses.replace(CONFIG, **settings), adapters)
    shapes, _ = parameter_shapes(model)
    tokens = np.ones((ROWS, LENGTH), np.int32)
    run = lambda parameters: model.apply({"params": parameters}, tokens, tokens, np.arange(ROWS) % 8)  # noqa: E731
    return constraints(jax.make_jaxpr(run)(shapes).jaxpr)


@pytest.fixture
def three_axes():
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def test_activations_and_mixing_weights_are_constrained(three_axes):
    assert program() == EXPECTED


@pytest.mark.parametrize("remat", ["none", "full"])
def test_scanned_layers_are_constrained_as_separate_layers_are(three_axes, remat):
    assert program(scan_layers=True, remat=remat, num_encoder_layers=3, num_decoder_layers=3) == EXPECTED


def test_the_weights_of_one_router_are_constrained_at_every_site_that_uses_them(three_axes):
    once_and_at_each_site = {("weights", PartitionSpec(BATCH, ("model",), None)): 1 + 3}
    assert program(dataclasses.replace(ADAPTERS, granularity="coarse")) == EXPECTED | once_and_at_each_site


def test_private_skills_are_constrained_like_the_mix(three_axes):
    found = program(dataclasses.replace(ADAPTERS, private_skill=LoRA()))
    mixed = {key: 2 * count for key, count in EXPECTED.items() if key[0].startswith("mixed")}
    assert found == EXPECTED | mixed | {("private weights", PartitionSpec(BATCH, None, None)): 3}
    owned = program(dataclasses.replace(ADAPTERS, router=PrivateRouter(), n_splits=1))
    assert owned[("private weights", PartitionSpec(BATCH, None, None))] == 3


def test_one_mix_for_all_rows_is_laid_out_like_the_kernel(three_axes):
    found = program(dataclasses.replace(ADAPTERS, router=AverageRouter()))
    common = ("embedding", "heads", "residual", "mlp", "logits")
    assert found == SHARED | {key: count for key, count in EXPECTED.items() if key[0] in common}


def test_a_program_without_a_mesh_has_no_constraint():
    assert not program()
    one = AbstractMesh((1, 1, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(one):
        assert not program()


def test_under_vmap_the_new_axis_is_left_to_the_compiler(three_axes):
    traced = jax.make_jaxpr(jax.vmap(lambda x: constrain(x, "batch", "embed")))(jnp.ones((3, 8, 4)))
    (equation,) = traced.jaxpr.eqns
    assert equation.params["sharding"].spec == PartitionSpec(PartitionSpec.UNCONSTRAINED, BATCH, None)


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ((8, 6, 16), ("batch", "length", "embed"), (BATCH, None, None)),
        # An axis that not all mesh axes of its rule divide may still be divided by some of them.
        ((6, 6, 16), ("batch", "length", "embed"), (("data",), None, ("fsdp",))),
        ((5, 4), ("batch", "heads"), (None, ("model",))),
        ((4, 3, 16, 2), ("splits", "skills", "lora_in", "lora_rank"), (("model", "fsdp"), None, None, None)),
        # What the splits leave, the skill's width takes.
        ((1, 3, 16, 2), ("splits", "skills", "lora_in", "lora_rank"), (None, None, ("model", "fsdp"), None)),
        # Tables of tasks are cut over all axes, whatever the number of tasks.
        ((313, 64, 8), ("tasks", "splits", "skills"), (None, ("model", "fsdp", "data"), None)),
        ((313, 2, 8), ("tasks", "splits", "skills"), (None, ("model",), ("fsdp", "data"))),
        ((10_000, 1, 3), ("tasks", "splits", "skills"), (("model", "fsdp", "data"), None, None)),
        (
            (1, 313, 16, 1),
            ("splits", "tasks", "lora_in", "lora_rank"),
            (None, None, ("model", "fsdp", "data"), None),
        ),
    ],
)
def test_an_axis_is_sharded_over_the_mesh_axes_of_its_rule_that_divide_it(shape, names, expected):
    sizes = {"data": 2, "fsdp": 2, "model": 2}
    assert mesh_axes(shape, names, rules_for(names), sizes) == PartitionSpec(*expected)


def test_rules_have_the_same_meaning_as_in_flax():
    # In t5x, several rules may name an axis, and the first rule with a free mesh axis applies. Meshes of t5x
    # have no axis `fsdp`.
    rules = (("batch", "data"), ("embed", "data"), ("embed", "model"), ("mlp", "fsdp"), ("vocab", None))
    sizes = {"data": 2, "model": 4}
    assert mesh_axes((8, 16), ("batch", "embed"), rules, sizes) == PartitionSpec(("data",), ("model",))
    assert mesh_axes((16, 8), ("embed", "mlp"), rules, sizes) == PartitionSpec(("data",), None)
    assert mesh_axes((8,), ("vocab",), rules, sizes) == PartitionSpec(None)
