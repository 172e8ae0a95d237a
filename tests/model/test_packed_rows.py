"""A row that packs several examples of several tasks computes for each what its own row would."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.scoring import decoder_inputs, token_log_probs
from poly_jax.model.segments import Segments
from poly_jax.model.transformer import Transformer
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.table import TableRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.training.update import Update, start
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

TASKS, SEGMENTS = 5, 4
# Lengths of inputs and targets; the tasks of the examples; which of them each row holds.
LENGTHS = [(5, 3), (4, 2), (6, 4), (7, 1), (3, 3)]
TASK_OF = [3, 0, 3, 4, 1]
ROWS = [[0, 1, 2], [3, 4]]
ROOM = (16, 10)
# A site of each kind: of the input, of the target, and what the target reads of the input.
SITES = ("encoder/mlp/wo", "decoder/encoder_decoder_attention/(key|out)")

ROUTERS = {
    "learned": LearnedRouter(),
    "top_k": LearnedRouter(scores="softmax", top_k=2),
    "straight_through": LearnedRouter(scores="straight_through", shared_skill=True),
    "l2": LearnedRouter(scores="l2", average_correction=True),
    "shared": SharedRouter(),
    "average": AverageRouter(),
    "private": PrivateRouter(),
    "random": RandomRouter(seed=2),
    "table": TableRouter(rows=tuple(tuple(1.0 + (t * k) % 3 for k in range(3)) for t in range(TASKS))),
}
INPUT_ROUTERS = {
    "tokens": TokenRouter(top_k=2),
    "arrow": ArrowRouter(),
    "phatgoose": PHATGOOSERouter(),
    "smear": SMEARRouter(),
}
SKILLS = {
    "lora": LoRA(rank=2, alpha=3.0),
    "merge_after": LoRA(rank=2, merge_after=True),
    "mtl_lora": MTLLoRA(rank=2, alpha=3.0),
    "ia3": IA3(),
}


def adapters(router, skill, **settings):
    settings = {"n_skills": 3, "n_splits": 2, "sites": SITES, **settings}
    if router in INPUT_ROUTERS:
        settings |= {"n_splits": 1, "n_skills": TASKS}
    return Adapters(SKILLS[skill], {**ROUTERS, **INPUT_ROUTERS}[router], n_tasks=TASKS, **settings)


CASES = [
    *(adapters(router, "lora") for router in (*ROUTERS, *INPUT_ROUTERS)),
    *(adapters(router, "ia3") for router in ("tokens", "smear")),
    *(adapters("learned", skill) for skill in ("merge_after", "mtl_lora", "ia3")),
    *(adapters("learned", "lora", granularity=each) for each in ("layer", "block", "stack", "coarse")),
    adapters("learned", "merge_after", n_splits=1),
    adapters("shared", "mtl_lora"),
    adapters("learned", "lora", private_skill=IA3()),
    adapters("shared", "ia3", private_skill=LoRA(rank=1)),
]


def model_of(adapters, **settings):
    config = T5Config(
        **{"num_encoder_layers": 1, "num_decoder_layers": 1, **settings},
        vocab_size=40,
        emb_dim=8,
        num_heads=2,
        head_dim=4,
        mlp_dim=12,
        mlp_activations=("relu",),
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        dropout_rate=0.0,
    )
    return Transformer(config, adapters, train=True)


def examples():
    """One row for each example, padded."""
    rng = np.random.default_rng(0)
    inputs, targets = (np.zeros((len(LENGTHS), room), np.int32) for room in ROOM)
    for row, (in_length, out_length) in enumerate(LENGTHS):
        inputs[row, :in_length] = rng.integers(2, 40, in_length)
        targets[row, :out_length] = rng.integers(2, 40, out_length)
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.asarray(decoder_inputs(jnp.asarray(targets), 0)),
        "decoder_loss_weights": (targets > 0).astype(np.int32),
        "task_ids": np.asarray(TASK_OF, np.int32),
    }


def packed(alone):
    """The same examples in two rows."""
    names = {
        "encoder": ("encoder_input_tokens",),
        "decoder": ("decoder_target_tokens", "decoder_input_tokens", "decoder_loss_weights"),
    }
    batch = {"task_ids": np.zeros((len(ROWS), SEGMENTS), np.int32)}
    for side, place in (("encoder", 0), ("decoder", 1)):
        for name in (*names[side], f"{side}_segment_ids"):
            batch[name] = np.zeros((len(ROWS), ROOM[place]), np.int32)
    for row, members in enumerate(ROWS):
        ends = [0, 0]
        for number, example in enumerate(members):
            batch["task_ids"][row, number] = TASK_OF[example]
            for side, place in (("encoder", 0), ("decoder", 1)):
                length = LENGTHS[example][place]
                positions = slice(ends[place], ends[place] + length)
                for name in names[side]:
                    batch[name][row, positions] = alone[name][example, :length]
                batch[f"{side}_segment_ids"][row, positions] = number + 1
                ends[place] += length
    return batch


def parameters_of(model):
    rng = np.random.default_rng(1)
    shapes, _ = parameter_shapes(model)
    draw = lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[-2] if leaf.ndim > 1 else 1)  # noqa: E731
    return jax.tree.map(lambda leaf: draw(leaf).astype(np.float32), shapes)


def noise(parameters, rows, sizes, depth):
    """Recorded draws for each router: of every row and segment, and of the same examples one by one."""
    rng = np.random.default_rng(2)

    def draws(tree, scanned):
        one, many = {}, {}
        for name, child in tree.items():
            if name == "router" and "logits" in child:
                shape = (len(LENGTHS), sizes.n_splits, sizes.n_skills)
                alone = rng.uniform(size=(depth, *shape) if scanned else shape).astype(np.float32)
                side_by_side = np.full((*alone.shape[:-3], len(rows), SEGMENTS, *shape[1:]), 0.5, np.float32)
                for row, members in enumerate(rows):
                    side_by_side[..., row, : len(members), :, :] = alone[..., members, :, :]
                one[name], many[name] = {"uniform": alone}, {"uniform": side_by_side}
            elif isinstance(child, dict):
                one[name], many[name] = draws(child, scanned or name == "layers")
        return one, many

    return draws(parameters, False)


def token_losses(model, variables, batch):
    logits = model.apply(
        variables,
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["task_ids"],
        segments=Segments.of(batch),
        rngs={"dropout": jax.random.key(0), "routing": jax.random.key(1)},
    )
    return token_log_probs(logits, batch["decoder_target_tokens"])


def per_example(model, parameters, recorded, batch):
    """The log-probabilities of all target tokens, example by example, and the gradient of their sum."""

    def total(parameters):
        losses = token_losses(model, {"params": parameters, "noise": recorded}, batch)
        return jnp.sum(losses * batch["decoder_loss_weights"]), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(parameters)
    return losses, gradient


@pytest.fixture(scope="module")
def check(quick_jit):
    """A function that compares a model's packed rows with the examples alone."""
    return functools.partial(_check, quick_jit(per_example, static_argnums=0))


def _check(per_example, model):
    parameters = parameters_of(model)
    alone = examples()
    together = packed(alone)
    one, many = noise(parameters, ROWS, model.adapters.sizes, model.config.num_encoder_layers)
    apart, gradient = per_example(model, parameters, one, alone)
    side_by_side, packed_gradient = per_example(model, parameters, many, together)
    for row, members in enumerate(ROWS):
        ends = np.cumsum([0] + [LENGTHS[example][1] for example in members])
        for example, begin, end in zip(members, ends, ends[1:], strict=False):
            np.testing.assert_allclose(
                side_by_side[row, begin:end], apart[example, : end - begin], rtol=1e-5, atol=1e-5
            )
    left, right = ravel_pytree(gradient)[0], ravel_pytree(packed_gradient)[0]
    np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-5 * float(jnp.abs(left).max()))


@pytest.mark.parametrize("adapters", CASES, ids=lambda a: f"{a.router}-{a.skill}-{a.granularity}"[:60])
def test_losses_and_gradients_of_packed_examples_are_those_of_the_examples_alone(adapters, check):
    check(model_of(adapters))


def test_skills_whose_outputs_are_averaged_are_not_copied_for_each_packed_example():
    model = model_of(adapters("learned", "merge_after"))
    variables, alone = {"params": parameters_of(model)}, examples()
    programs = [
        str(jax.make_jaxpr(lambda variables, batch=batch: token_losses(model, variables, batch))(variables))
        for batch in (alone, packed(alone))
    ]
    # B of all skills is 3 skills x rank 2 = 6 high and 8 wide; there are 5 examples, or 2 rows of 4 examples.
    assert "f32[5,6,8]" in programs[0]
    assert "f32[2,4,6,8]" not in programs[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"scan_layers": True, "num_encoder_layers": 2, "num_decoder_layers": 2},
        {"remat": "full", "relative_bias_in_layers": True},
    ],
    ids=["scanned", "recomputed"],
)
def test_packed_rows_go_through_every_form_of_the_stacks(settings, check):
    check(model_of(adapters("learned", "lora"), **settings))


def test_the_bare_t5_keeps_packed_examples_apart(quick_jit):
    model = dataclasses.replace(model_of(adapters("shared", "lora")), adapters=None)
    alone = examples()
    variables = {"params": parameters_of(model)}
    losses = quick_jit(token_losses, static_argnums=0)
    apart, together = (losses(model, variables, batch) for batch in (alone, packed(alone)))
    np.testing.assert_allclose(together[1, 1:4], apart[4, :3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize_by", ["tokens", "examples"])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_step_on_packed_rows_is_the_step_on_its_examples(normalize_by, microbatches):
    import optax

    model = model_of(adapters("learned", "lora", granularity="coarse"))
    model = dataclasses.replace(
        model, adapters=dataclasses.replace(model.adapters, router=LearnedRouter(sampling=False))
    )
    trained, frozen = split(parameters_of(model), is_adapter_parameter)
    loss = TokenLoss(label_smoothing=0.1, z_loss=1e-3, normalize_by=normalize_by)
    descent = optax.sgd(1.0)
    found = []
    alone = examples()
    for batch, parts in ((alone, 1), (packed(alone), microbatches)):
        update = Update(model, loss, descent, parts)
        state, metrics = jax.jit(update)(start(trained, descent), frozen, batch, jax.random.key(0))
        found.append((float(metrics["loss"]), np.asarray(ravel_pytree(state.trained)[0])))
    (loss_alone, after_alone), (loss_packed, after_packed) = found
    np.testing.assert_allclose(loss_packed, loss_alone, rtol=1e-5)
    np.testing.assert_allclose(after_packed, after_alone, rtol=1e-5, atol=1e-5)
