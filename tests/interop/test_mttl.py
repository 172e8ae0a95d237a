"""Tensors of the reference implementation become skills and routers with the same outputs."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.interop.adapters import holds_adapters, read_adapters
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.tree import flatten

CONFIG = T5Config(
    vocab_size=9, emb_dim=4, num_heads=2, head_dim=3, mlp_dim=8, num_encoder_layers=2, num_decoder_layers=1
)
RNG = np.random.default_rng(0)
T, H, K, R = 3, 2, 4, 5
QUERIES = [f"encoder.block.{i}.layer.0.SelfAttention.q" for i in range(2)]
OUTS = [f"encoder.block.{i}.layer.1.DenseReluDense.wo" for i in range(2)]
VALUES = [f"encoder.block.{i}.layer.0.SelfAttention.v" for i in range(2)]
WIDTHS = {name: (4, 6) for name in [*QUERIES, *VALUES]} | {name: (8, 4) for name in OUTS}


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def routed(tables):
    """A checkpoint with Lightning's names; `tables` are the modules that have a router."""
    tensors = {}
    for module, (d_in, d_out) in WIDTHS.items():
        tensors[f"model.{module}.lora_a"] = normal(H, K, d_in // H, R)
        tensors[f"model.{module}.lora_b"] = normal(H, K, R, d_out // H)
    for module in tables:
        tensors[f"model.{module}.selector.module_logits"] = normal(T, H * K)
    return tensors


@pytest.fixture(params=["a.npz", "a.safetensors"])
def write(request, tmp_path):
    def write(tensors):
        path = tmp_path / request.param
        if path.suffix == ".npz":
            np.savez(path, **tensors)
        else:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
        return str(path)

    return write


def test_routed_lora_is_read_tensor_by_tensor(write):
    tensors = routed(WIDTHS)
    path = write(tensors)
    assert holds_adapters(path)
    read = read_adapters(path, CONFIG)
    assert (read.skill, read.router) == (LoRA(rank=R), LearnedRouter())
    assert (read.n_tasks, read.n_splits, read.n_skills, read.granularity) == (T, H, K, "fine")
    assert read.sites == ("encoder/attention/query", "encoder/attention/value", "encoder/mlp/wo")
    leaves = flatten(read.tree)
    assert len(leaves) == len(tensors)
    for module, place in {
        QUERIES[1]: "encoder/layers_1/attention/query",
        OUTS[0]: "encoder/layers_0/mlp/wo",
    }.items():
        for theirs, ours in {"lora_a": "skills/lora_a", "lora_b": "skills/lora_b"}.items():
            np.testing.assert_array_equal(leaves[f"{place}/{ours}"], tensors[f"model.{module}.{theirs}"])
        # Index order in the file: splits first (view(-1, n_splits, n_skills)).
        logits = tensors[f"model.{module}.selector.module_logits"]
        assert leaves[f"{place}/router/logits"][2, 1, 3] == logits[2, 1 * K + 3]


@pytest.mark.parametrize(
    ("tables", "granularity", "routers"),
    [
        ([QUERIES[0]], "coarse", ["router"]),
        ([QUERIES[0], QUERIES[1]], "block", ["encoder/layers_0/router", "encoder/layers_1/router"]),
        (
            [*QUERIES, *OUTS],
            "layer",
            [f"encoder/layers_{i}/{sublayer}/router" for i in range(2) for sublayer in ("attention", "mlp")],
        ),
        (
            [*QUERIES, *VALUES, *OUTS],
            "fine",
            [
                f"encoder/layers_{i}/{site}/router"
                for i in range(2)
                for site in ("attention/query", "attention/value", "mlp/wo")
            ],
        ),
    ],
)
def test_routers_that_are_stored_once_are_shared(write, tables, granularity, routers):
    read = read_adapters(write(routed(tables)), CONFIG)
    assert read.granularity == granularity
    found = {name.removesuffix("/logits") for name in flatten(read.tree) if name.endswith("logits")}
    assert found == set(routers)


def test_equal_copies_of_a_router_get_the_granularity_that_the_user_chooses(write):
    tensors = routed(WIDTHS)
    first = tensors[f"model.{QUERIES[0]}.selector.module_logits"]
    for name in tensors:
        if name.endswith("module_logits"):
            tensors[name] = first
    path = write(tensors)
    with pytest.raises(
        UserError,
        match=r"equal routers.* add --gin\.Adapters\.granularity=VALUE with one of 'coarse', 'stack'",
    ):
        read_adapters(path, CONFIG)
    read = read_adapters(path, CONFIG, granularity="coarse")
    assert read.granularity == "coarse"
    np.testing.assert_array_equal(read.tree["router"]["logits"].reshape(T, H * K), first)
    assert (
        len([n for n in flatten(read_adapters(path, CONFIG, granularity="fine").tree) if "router" in n]) == 6
    )


def test_a_granularity_that_the_routers_do_not_fit_is_refused(write):
    with pytest.raises(UserError, match=r"granularity is 'coarse', and the routers in .* fit fine"):
        read_adapters(write(routed(WIDTHS)), CONFIG, granularity="coarse")


def test_a_missing_router_is_reported_by_name(write):
    with pytest.raises(UserError, match=r"lacks the routers of 1 adapted maps \(encoder/layers_1/mlp/wo\)"):
        read_adapters(write(routed([*QUERIES, *VALUES, OUTS[0]])), CONFIG)


def test_skills_without_a_router_leave_the_router_to_the_user(write):
    read = read_adapters(write(routed([])), CONFIG)
    assert read.router is None
    assert read.n_tasks is None
    with pytest.raises(UserError, match="does not say how tasks pick skills"):
        read.adapters("file")


@pytest.mark.parametrize("older", [False, True])
def test_plain_lora_from_either_revision_is_one_shared_skill(write, older):
    tensors = {}
    for module, (d_in, d_out) in WIDTHS.items():
        tensors[f"{module}.lora_a"], tensors[f"{module}.lora_b"] = normal(d_in, R), normal(R, d_out)
    stored = {name: array.T for name, array in tensors.items()} if older else tensors
    read = read_adapters(write(stored), CONFIG)
    assert (read.skill, read.router) == (LoRA(rank=R), SharedRouter())
    leaves = flatten(read.tree)
    place = "encoder/layers_1/mlp/wo/skills"
    np.testing.assert_array_equal(leaves[f"{place}/lora_a"][0, 0], tensors[f"{OUTS[1]}.lora_a"])
    np.testing.assert_array_equal(leaves[f"{place}/lora_b"][0, 0], tensors[f"{OUTS[1]}.lora_b"])


def test_routed_ia3_puts_splits_before_skills(write):
    tensors = {f"{module}.lora_a": normal(K, H, d_out // H) for module, (_, d_out) in WIDTHS.items()}
    tensors |= {f"{module}.selector.module_logits": normal(T, H * K) for module in WIDTHS}
    read = read_adapters(write(tensors), CONFIG)
    assert (read.skill, read.n_splits, read.n_skills) == (IA3(), H, K)
    weights = RNG.uniform(size=(H, K))
    theirs = np.einsum("qs,sqd->qd", weights, tensors[f"{QUERIES[0]}.lora_a"])
    ours = np.einsum("hk,hko->ho", weights, flatten(read.tree)["encoder/layers_0/attention/query/skills/ia3"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_trained_vectors_of_t_few_are_read(shared_data):
    file = shared_data / "t0_3b_ia3_tfew.npz"
    t0_3b = T5Config(
        emb_dim=2048, num_heads=32, head_dim=64, mlp_dim=5120, num_encoder_layers=24, num_decoder_layers=24
    )
    read = read_adapters(str(file), t0_3b)
    assert (read.skill, read.router) == (IA3(), SharedRouter())
    assert set(read.sites) == {
        "encoder/attention/key",
        "encoder/attention/value",
        "encoder/mlp/wi_1",
        "decoder/self_attention/key",
        "decoder/self_attention/value",
        "decoder/encoder_decoder_attention/key",
        "decoder/encoder_decoder_attention/value",
        "decoder/mlp/wi_1",
    }
    leaves = flatten(read.tree)
    # The parameter count of (IA)^3 on T5 XL in arXiv 2211.03831.
    assert sum(leaf.size for leaf in leaves.values()) == 540_672
    theirs = np.load(file)["decoder.block.5.layer.1.EncDecAttention.v.multi_lora_b"]
    ours = leaves["decoder/layers_5/encoder_decoder_attention/value/skills/ia3"]
    np.testing.assert_array_equal(ours[0, 0], theirs[:, 0])


def test_vectors_of_another_model_are_refused_with_both_shapes(shared_data):
    wrong = T5Config(
        emb_dim=1024, num_heads=16, head_dim=64, mlp_dim=2816, num_encoder_layers=24, num_decoder_layers=24
    )
    with pytest.raises(
        UserError, match=r"192 of another shape .*\[1, 1, 2048\] and the model has \[1, 1, 1024\]"
    ):
        read_adapters(str(shared_data / "t0_3b_ia3_tfew.npz"), wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared.weight": normal(9, 4)}, r"1 tensor besides the adapters of a T5 \(shared\.weight\)"),
        ({f"{QUERIES[0]}.multi_lora_b": normal(6)}, "adapts its maps in different or unknown ways"),
        (
            {f"model.{QUERIES[0]}.selector.module_logits": normal(T, 7)},
            r"router of .* is \[3, 7\], and 3 tasks",
        ),
        (
            {f"model.{QUERIES[0]}.lora_a": normal(H, K, 3, R)},
            r"1 of another shape .*\[2, 4, 3, 5\] and the model",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_reported_by_name(write, change, message):
    with pytest.raises(UserError, match=message):
        read_adapters(write(routed(WIDTHS) | change), CONFIG)


def test_a_layer_without_tensors_is_named_even_if_it_is_the_last(write):
    tensors = {name: array for name, array in routed([]).items() if QUERIES[1] not in name}
    with pytest.raises(UserError, match=r"does not adapt encoder/attention/query in layers \[1\]"):
        read_adapters(write(tensors), CONFIG)


def test_broken_files_are_reported_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(1000))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"a\.npz cannot be read as npz"):
        read_adapters(str(tmp_path / "a.npz"), CONFIG)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"pickled\.npz cannot be read as npz"):
        read_adapters(str(tmp_path / "pickled.npz"), CONFIG)
    with pytest.raises(UserError, match=r"nothing\.npz is missing"):
        read_adapters(str(tmp_path / "nothing.npz"), CONFIG)
