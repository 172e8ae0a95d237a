"""Every mesh of eight devices computes the same numbers as one device. Run as a program, this computes both.

Until the mixing weights were constrained to the sharding of the batch, XLA (jax 0.10.2) silently computed
wrong losses on meshes with three axes.

By default a sample is run. Every case on every mesh, which takes about
an hour, is run by `POLY_JAX_MESHES=whole python -m pytest tests/model/test_mesh_numbers.py`.
"""

import collections
import dataclasses
import functools
import json
import os
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.model.choices import choice_scores
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.scoring import sequence_scores
from poly_jax.model.transformer import Transformer
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.table import TableRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.training.mesh import Partitioning, on_mesh, shardings, to_mesh
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import merge, split

ROWS, TASKS = 8, 8
_RATE = 1024.0
SITES = ("encoder/mlp/.*", "decoder/encoder_decoder_attention/key", "decoder/mlp/wo")
_READ = ("encoder_input_tokens", "decoder_target_tokens", "task_ids")
# Values of fsdp and model.
SHAPES = [(2, 2), (1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8)]
TABLE = tuple(tuple(1.0 + (task * skill) % 3 for skill in range(4)) for task in range(TASKS))


def _adapters(skill, router, **settings):
    settings = {"n_tasks": TASKS, "n_skills": 4, "n_splits": 4, **settings}
    return Adapters(skill, router, sites=SITES, **settings)


CASES = {
    "mhr": _adapters(LoRA(rank=2, dropout=0.1), LearnedRouter()),
    "coarse": _adapters(LoRA(rank=2), LearnedRouter(), granularity="coarse"),
    "top_k": _adapters(LoRA(rank=2, merge_after=True), LearnedRouter(scores="softmax", top_k=2), n_tasks=6),
    "five tasks": _adapters(LoRA(rank=2), LearnedRouter(scores="l2"), n_tasks=5, n_skills=3, n_splits=2),
    "table": _adapters(LoRA(rank=1), TableRouter(rows=TABLE)),
    "random": _adapters(IA3(), RandomRouter(seed=1)),
    "average": _adapters(LoRA(rank=2), AverageRouter()),
    "shared": _adapters(LoRA(rank=2), SharedRouter()),
    "private": _adapters(LoRA(rank=2), PrivateRouter()),
    "tokens": _adapters(LoRA(rank=2), TokenRouter(), n_splits=1),
    "vectors of tokens": _adapters(IA3(), TokenRouter(top_k=2), n_splits=1),
    "gates": _adapters(LoRA(rank=2), PHATGOOSERouter(), n_skills=TASKS, n_splits=1),
    "prototypes": _adapters(LoRA(rank=2), ArrowRouter(), n_splits=1),
    "pooled": _adapters(LoRA(rank=2), SMEARRouter(), n_splits=1, private_skill=IA3()),
    # Neither two splits nor two skills are divided by an axis of four or eight devices, but by its parts.
    "two splits": _adapters(LoRA(rank=2), LearnedRouter(), n_tasks=5, n_skills=2, n_splits=2),
    "two splits of private skills": _adapters(
        LoRA(rank=2), LearnedRouter(), n_tasks=5, n_skills=2, n_splits=2, private_skill=LoRA(rank=2)
    ),
    "matrices of tasks": _adapters(MTLLoRA(rank=2), LearnedRouter(scores="softmax"), n_splits=2),
    "private_skill": _adapters(LoRA(rank=2), LearnedRouter(), private_skill=IA3(), granularity="layer"),
}
SAMPLE = [
    # What XLA has computed wrongly at one time or another, on a mesh of all three axes.
    ("apart", ("mhr", "private_skill", "tokens"), [(2, 2)]),
    ("scanned", ("coarse",), [(2, 2)]),
    # The axis of eight devices is cut into parts for splits, for skills, and a rest.
    ("apart", ("two splits",), [(8, 1)]),
]
WHOLE = [(form, tuple(CASES), SHAPES) for form in ("apart", "scanned")]


def _model(case, scanned):
    depth = 2 if scanned else 1
    config = T5Config(
        vocab_size=60,
        emb_dim=16,
        num_heads=4,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=depth,
        num_decoder_layers=depth,
        mlp_activations=("relu",),
        logits_via_embedding=scanned,
        dropout_rate=0.1,
        scan_layers=scanned,
    )
    return Transformer(config, CASES[case])


def _parameters(model):
    rng = np.random.default_rng(0)
    shapes, axes = parameter_shapes(model)
    draw = lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[-2] if leaf.ndim > 1 else 1)  # noqa: E731
    return jax.tree.map(lambda leaf: draw(leaf).astype(np.float32), shapes), shapes, axes


def _batch(model):
    rng = np.random.default_rng(1)
    tokens = rng.integers(2, 60, (2, ROWS, 6)).astype(np.int32)
    targets = np.where(np.arange(6) < rng.integers(2, 7, (ROWS, 1)), tokens[0], 0)
    return {
        "encoder_input_tokens": tokens[1],
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
        "task_ids": np.arange(ROWS, dtype=np.int32) * 3 % model.adapters.n_tasks,
    }


def _trained(model, parameters, batch):
    """A step of gradient descent with dropout and sampling, and the scores in evaluation."""
    trained, frozen = split(parameters, is_adapter_parameter)
    # At a rate of 1 the parameters' rounding would be as large as the differences that this looks for.
    descent = optax.sgd(_RATE)
    update = Update(dataclasses.replace(model, train=True), TokenLoss(), descent)
    state, metrics = update(start(trained, descent), frozen, batch, jax.random.key(0))
    inputs, targets, ids = (batch[name] for name in _READ)
    logits = model.apply({"params": parameters}, inputs, batch["decoder_input_tokens"], ids)
    return {
        "loss": metrics["loss"],
        "gradient": ravel_pytree(jax.tree.map(jnp.subtract, trained, state.trained))[0] / _RATE,
        "scores": sequence_scores(logits, targets, (targets > 0).astype(jnp.float32)),
    }


def _packed(model, parameters, batch):
    """The loss and the gradient of rows that hold two examples of two tasks."""
    half = batch["encoder_input_tokens"].shape[1] // 2
    segments = jnp.broadcast_to(jnp.arange(2 * half) // half + 1, (ROWS, 2 * half))
    ids = jnp.stack([batch["task_ids"], jnp.roll(batch["task_ids"], 3)], axis=1)
    together = {"encoder_segment_ids": segments, "decoder_segment_ids": segments, "task_ids": ids}
    trained, frozen = split(parameters, is_adapter_parameter)

    def loss(trained):
        apply = functools.partial(model.apply, {"params": merge(frozen, trained)})
        return TokenLoss().totals(apply, {**batch, **together})["tokens"]

    total, gradient = jax.value_and_grad(loss)(trained)
    return {"packed loss": total, "packed gradient": ravel_pytree(gradient)[0]}


def _decoded(model, parameters, batch):
    """Greedy outputs, beams, and the scores of two answer choices, for tasks of rows and for one of all."""
    inputs, targets, ids = (batch[name] for name in _READ)
    greedy = generate(model, parameters, inputs, ids, Decoding(max_length=4))
    beams = generate(model, parameters, inputs, ids, Decoding(max_length=4, n_beams=2))
    choices = jnp.stack([targets, jnp.roll(targets, 1, axis=0)], axis=1)
    return {
        "choices": choice_scores(model, parameters, inputs, choices, ids),
        "choices of one task": choice_scores(model, parameters, inputs, choices, ids[1]),
        "greedy": greedy.tokens,
        "beams": beams.tokens,
        "beam scores": beams.scores,
    }


_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)


def _difference(one, many):
    """The largest difference, relative to the largest value; 1 where ids differ."""
    one, many = np.asarray(one), np.asarray(many)
    if one.dtype == np.int32:
        return float((one != many).any())
    return float(np.abs(one - many).max() / np.abs(one).max())


def main(scanned, cases, meshes):
    """Print as JSON, for every case and mesh shape, how far each number is from that of one device."""
    found = {}
    for case in cases:
        model = _model(case, scanned)
        parameters, shapes, axes = _parameters(model)
        batch = _batch(model)
        for program in (_trained, _packed, _decoded):
            one = _jit(functools.partial(program, model))(parameters, batch)
            for fsdp, parallel in meshes:
                mesh = Partitioning(fsdp=fsdp, model=parallel).mesh_for(model.config, model.adapters)
                placed = jax.device_put(parameters, shardings(shapes, axes, mesh))
                with on_mesh(mesh):
                    many = _jit(functools.partial(program, model))(placed, to_mesh(batch, mesh))
                far = {name: _difference(one[name], many[name]) for name in one}
                found.setdefault(f"{case} {tuple(mesh.shape.values())}", {}).update(far)
    print(json.dumps(found))


def t5x():
    """Print as JSON the loss in t5x's context and on one device, and the constraints of the program."""
    # The rules of `t5x.partitioning.standard_logical_axis_rules` that matter on a mesh of two axes.
    rules = (
        ("batch", "data"),
        ("vocab", "model"),
        ("embed", None),
        ("mlp", "model"),
        ("heads", "model"),
        ("kv", None),
        ("joined_kv", "model"),
        ("embed", "data"),
        ("splits", None),
        ("skills", None),
    )
    model = _model("mhr", scanned=False)
    parameters, _, _ = _parameters(model)
    batch = _batch(model)

    def loss(parameters, batch):
        apply = functools.partial(model.apply, {"params": parameters})
        return TokenLoss().totals(apply, batch)["tokens"]

    one = _jit(loss)(parameters, batch)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    place = NamedSharding(mesh, PartitionSpec("data"))
    with mesh, nn.logical_axis_rules(rules):
        program = str(jax.make_jaxpr(loss)(parameters, batch))
        many = _jit(loss)(parameters, jax.device_put(batch, place))
    specs = collections.Counter(re.findall(r"spec=(P\(.*?\)), memory", program))
    print(json.dumps({"one": float(one), "many": float(many), "specs": specs}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "cases", "meshes"), WHOLE if os.environ.get("POLY_JAX_MESHES") == "whole" else SAMPLE
)
def test_eight_devices_compute_the_same_as_one_device(form, cases, meshes, on_eight_devices):
    found = on_eight_devices(__file__, form, json.dumps({"cases": cases, "meshes": meshes}))
    assert len(found) == len(cases) * len(meshes)
    far = {
        f"{name}: {number}": difference
        for name, differences in found.items()
        for number, difference in differences.items()
        if difference > 1e-5
    }
    assert not far


@pytest.mark.slow
def test_constraints_apply_in_programs_that_enter_the_mesh_as_t5x_does(on_eight_devices):
    found = on_eight_devices(__file__, "t5x")
    np.testing.assert_allclose(found["many"], found["one"], rtol=1e-5)
    # Four sites are adapted. Two of them have outputs, and two have inputs, that the axis `model` cuts.
    assert found["specs"] == {
        # The embedding, for each of its two uses; the two factors of the skills of each site.
        "P('model', None)": 2,
        "P('model', None, None, None)": 2 * 4,
        # Projections into heads.
        "P('data', None, 'model', None)": 9,
        # The two hidden layers of the MLPs, the logits, and mixed factors B.
        "P('data', None, 'model')": 3 + 2,
        # Two embedded texts, what five sub-layers add to the residual streams, the two layers' outputs, and
        # mixed factors A and B.
        "P('data', None, None)": 2 + 5 + 2 + 4,
        # Mixing weights where they are looked up and where they mix, and mixed factors A.
        "P('data', 'model', None)": 2 * 4 + 2,
    }


if __name__ == "__main__":
    if sys.argv[1] == "t5x":
        t5x()
    else:
        main(sys.argv[1] == "scanned", **json.loads(sys.argv[2]))
