"""Every mesh of eight devices computes one device's numbers; run as a program, this computes both.

XLA (jax 0.10.2) computed other losses on meshes of three axes, in silence, until the mixing weights were
constrained to lie as the batch does.
"""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.scoring import sequence_scores
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.table import TableRouter

ROWS, TASKS = 8, 8
# All three axes first; then every other shape, each with some of the cases.
SHAPES = [(2, 2), (1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8)]
TABLE = tuple(tuple(1.0 + (task * skill) % 3 for skill in range(4)) for task in range(TASKS))


def _adapters(skill, router, **settings):
    settings = {"n_tasks": TASKS, "n_skills": 4, "n_splits": 4, **settings}
    return Adapters(skill, router, sites=(".*/mlp/.*", "decoder/.*attention/(query|out)"), **settings)


CASES = {
    "mhr": _adapters(LoRA(rank=2, dropout=0.1), LearnedRouter()),
    "coarse": _adapters(LoRA(rank=2), LearnedRouter(), granularity="coarse"),
    "top_k": _adapters(LoRA(rank=2, merge_after=True), LearnedRouter(scores="softmax", top_k=2)),
    "five tasks": _adapters(LoRA(rank=2), LearnedRouter(scores="l2"), n_tasks=5, n_skills=3, n_splits=2),
    "table": _adapters(LoRA(rank=1), TableRouter(rows=TABLE)),
    "random": _adapters(IA3(), RandomRouter(seed=1)),
    "average": _adapters(LoRA(rank=2), AverageRouter()),
    "shared": _adapters(LoRA(rank=2), SharedRouter()),
    "private": _adapters(LoRA(rank=2), PrivateRouter()),
    "private_skill": _adapters(LoRA(rank=2), LearnedRouter(), private_skill=IA3(), granularity="layer"),
}


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


def _numbers(model, parameters, batch):
    """What training, evaluation and decoding make of one batch; a step of gradient descent has rate 1."""
    import dataclasses

    import optax

    from poly_jax.training.update import Update, start
    from poly_jax.weights.parameter_names import is_adapter_parameter
    from poly_jax.weights.tree import split

    trained, frozen = split(parameters, is_adapter_parameter)
    descent = optax.sgd(1.0)
    update = Update(dataclasses.replace(model, train=True), TokenLoss(), descent, microbatches=1)
    state, metrics = update(start(trained, descent), frozen, batch, jax.random.key(0))
    inputs, targets, ids = (
        batch[name] for name in ("encoder_input_tokens", "decoder_target_tokens", "task_ids")
    )
    logits = model.apply({"params": parameters}, inputs, batch["decoder_input_tokens"], ids)
    greedy = generate(model, parameters, inputs, ids, Decoding(max_length=4))
    beams = generate(model, parameters, inputs, ids, Decoding(max_length=4, n_beams=2))
    choices = jnp.stack([targets, jnp.roll(targets, 1, axis=0)], axis=1)
    ranked = model.apply({"params": parameters}, inputs, choices, ids, method="choice_logits")
    return {
        "loss": metrics["loss"],
        "gradient": jax.tree.map(lambda before, after: before - after, trained, state.trained),
        "scores": sequence_scores(logits, targets, (targets > 0).astype(jnp.float32)),
        "choices": ranked,
        "greedy": greedy.tokens,
        "beams": beams.tokens,
        "beam scores": beams.scores,
    }


_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)


def _difference(one, many):
    """The largest difference relative to the largest value of an array; 1 where ids differ."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype == np.int32:
            worst = max(worst, float((a != b).any()))
        else:
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)))
    return worst


def main(scanned, cases):
    """Prints as JSON, for every case and mesh shape, how far each of the numbers is from one device's."""
    from poly_jax.training.mesh import Partitioning, on_mesh, shardings, to_mesh

    found = {}
    for i, (case, adapters) in enumerate(CASES.items()):
        if cases and case not in cases:
            continue
        model = _model(case, scanned)
        parameters, shapes, axes = _parameters(model)
        batch = _batch(model)
        one = _jit(functools.partial(_numbers, model))(parameters, batch)
        others = [SHAPES[1 + (i + 5 * scanned) % 9]]
        for fsdp, parallel in [SHAPES[0], *others]:
            mesh = Partitioning(fsdp=fsdp, model=parallel).mesh()
            placed = jax.device_put(parameters, shardings(shapes, axes, mesh))
            with on_mesh(mesh):
                many = _jit(functools.partial(_numbers, model))(placed, to_mesh(batch, mesh))
            found[f"{case} {tuple(mesh.shape.values())}"] = {
                name: _difference(one[name], many[name]) for name in one
            }
        del adapters
    print(json.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["apart", "scanned"])
def test_eight_devices_compute_what_one_computes(form):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, __file__, form], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum("(2, 2, 2)" in name for name in found) == len(CASES)
    far = {
        f"{name}: {what}": difference
        for name, differences in found.items()
        for what, difference in differences.items()
        if difference > 1e-5
    }
    assert not far


if __name__ == "__main__":
    main(sys.argv[1] == "scanned", sys.argv[2:])
