"""What a training step of MHR sends on meshes of eight devices. Run as a program, this compiles the steps."""

import json

import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.experiment import Data, Experiment
from poly_jax.model.config import T5Config
from poly_jax.planning.abstract_run import AbstractRun, table_of
from poly_jax.planning.plan import Accelerators, make_plan
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.mesh import Partitioning

LAYERS, EMBED, MLP, HEADS, KV, VOCAB = 3, 64, 192, 8, 8, 96
# A prime number of tasks, and a number that is no other side of an array.
TASKS, SPLITS, SKILLS = 13, 16, 4
ROWS, INPUTS, TARGETS = 8, 40, 24
FLOAT = 4


def _run(data, fsdp, model, splits=SPLITS):
    config = T5Config(
        vocab_size=VOCAB,
        emb_dim=EMBED,
        num_heads=HEADS,
        head_dim=KV,
        mlp_dim=MLP,
        num_encoder_layers=LAYERS,
        num_decoder_layers=LAYERS,
        mlp_activations=("gelu", "linear"),
        scan_layers=True,
    )
    sites = tuple(f".*/{site}" for site in ("query", "key", "value", "out", "wi_0", "wi_1", "wo"))
    adapters = Adapters(LoRA(rank=1), LearnedRouter(), TASKS, SKILLS, splits, sites)
    lengths = Data("none", inputs_length=INPUTS, targets_length=TARGETS, batch_size=ROWS * data * fsdp)
    mesh = Partitioning(fsdp=fsdp, model=model)
    return AbstractRun(Experiment(config, lengths, adapters), steps=10, partitioning=mesh)


def main():
    """Print as JSON what is sent on each mesh."""
    found = {}
    for shape in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (8, 1, 1, SKILLS)):
        plan = make_plan(_run(*shape), table_of(TASKS), Accelerators.named("v5e:2x4", simulate=True))
        found[str(shape)] = {
            "sent": [
                {"kind": each.kind, "bytes": each.bytes, "sides": each.sides} for each in plan.collectives
            ],
            "resharded": [f"{each.kind} {each.shape} {each.source}" for each in plan.reshards],
            "trained": plan.memory.trained + plan.memory.optimizer,
        }
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found(on_eight_devices):
    return on_eight_devices(__file__, JAX_DISABLE_MOST_OPTIMIZATIONS="1")


def _bytes(sent, kind):
    return sum(each["bytes"] for each in sent if each["kind"] == kind)


_ENCODER = 4 * EMBED * HEADS * KV + 3 * EMBED * MLP
_DECODER = 8 * EMBED * HEADS * KV + 3 * EMBED * MLP
_KERNELS = LAYERS * (_ENCODER + _DECODER)
# At each site, A and B together are as long as the site's two sides, for each skill.
_SKILLS = LAYERS * SKILLS * (12 * (EMBED + HEADS * KV) + 6 * (EMBED + MLP))
_TABLES = LAYERS * 18 * TASKS * SPLITS * SKILLS


@pytest.mark.slow
def test_no_mesh_reshards_activations(found):
    assert {shape: each["resharded"] for shape, each in found.items()} == {shape: [] for shape in found}


@pytest.mark.slow
def test_no_mesh_gathers_a_router_table(found):
    for each in found.values():
        assert not [sent for sent in each["sent"] if TASKS in sent["sides"] and sent["kind"] == "all-gather"]


@pytest.mark.slow
def test_a_table_that_an_axis_does_not_divide_is_divided_by_its_parts(found):
    """Eight devices divide neither the 13 tasks nor 4 splits or 4 skills, but 4 splits x 2 of the skills."""
    each = found[f"(8, 1, 1, {SKILLS})"]
    tables = _TABLES * SKILLS / SPLITS
    assert each["trained"] <= 1.01 * 3 * FLOAT * (_SKILLS + tables / 8)
    # Splits and then skills are exchanged for rows, in both directions; no device has all rows at once.
    assert _bytes(each["sent"], "all-gather") < EMBED * FLOAT * 4
    rows = 8 * ROWS
    assert _bytes(each["sent"], "all-to-all") <= 2 * 2 * FLOAT * LAYERS * 18 * rows * SKILLS * SKILLS / 8


@pytest.mark.slow
def test_fsdp_gathers_every_weight_at_most_once_in_each_direction(found):
    sent = found["(1, 8, 1)"]["sent"]
    embeddings = 2 * VOCAB * EMBED
    # The mixing weights that go back to the rows of each device are small beside the weights.
    assert _bytes(sent, "all-gather") <= 1.05 * 2 * FLOAT * (_KERNELS + _SKILLS + embeddings)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["(8, 1, 1)", "(1, 8, 1)"])
def test_the_skills_gradients_are_added_up_once_and_no_frozen_weight_has_one(found, shape):
    sent = found[shape]["sent"]
    added = _bytes(sent, "all-reduce") + _bytes(sent, "reduce-scatter")
    # Beside them there are only the loss and a few other numbers.
    assert FLOAT * _SKILLS <= added <= 1.01 * FLOAT * _SKILLS


@pytest.mark.slow
def test_data_parallelism_sends_no_weights_and_no_activations(found):
    sent = found["(8, 1, 1)"]["sent"]
    assert {each["kind"] for each in sent} <= {"all-reduce", "all-gather", "all-to-all"}
    assert _bytes(sent, "all-gather") < EMBED * FLOAT * 4
    # The mixing weights of every row's task, and their gradients.
    rows = 8 * ROWS
    assert _bytes(sent, "all-to-all") <= 2 * FLOAT * LAYERS * 18 * rows * SPLITS * SKILLS / 8


@pytest.mark.slow
def test_tensor_parallelism_adds_activations_up_twice_in_each_block_and_direction(found):
    sent = found["(1, 1, 8)"]["sent"]
    inputs, targets = ROWS * INPUTS * EMBED, ROWS * TARGETS * EMBED
    blocks = 2 * LAYERS * (2 * inputs + 3 * targets)
    # The two embedded texts, the gradient of the encoder's output, and that of the output head.
    ends = 2 * (inputs + targets)
    assert _bytes(sent, "all-reduce") <= 1.05 * FLOAT * (blocks + ends)


@pytest.mark.slow
def test_the_trained_state_is_spread_over_all_devices(found):
    # The parameters and two moments; on (2, 2, 2), skills are copied along the data axis.
    whole = 3 * FLOAT * (_SKILLS + _TABLES)
    assert found["(1, 8, 1)"]["trained"] <= 1.01 * whole / 8
    assert found["(1, 1, 8)"]["trained"] <= 1.01 * whole / 8
    assert found["(2, 2, 2)"]["trained"] <= 1.01 * 3 * FLOAT * (_SKILLS / 4 + _TABLES / 8)


if __name__ == "__main__":
    main()
