"""One task of a run with merge-after, private skills or MTL-LoRA: merged into the T5, or as a PEFT LoRA."""

import json

import jax
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.interop.peft.writer import write_peft_lora, write_peft_poly
from poly_jax.interop.task_mix import merged
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.open_run import OpenRun
from poly_jax.training.saved_step import Origin
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import flatten, unflatten

CONFIG = T5Config(
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
KINDS = {
    "merge_after": {"skill": LoRA(rank=2, alpha=3.0, merge_after=True)},
    "c_poly": {"skill": LoRA(rank=2, alpha=3.0), "private_skill": LoRA(rank=1, alpha=0.7)},
    "c_poly_after": {"skill": LoRA(rank=1, merge_after=True), "private_skill": LoRA(rank=2)},
    "mtl_lora": {"skill": MTLLoRA(rank=2, alpha=3.0)},
    "c_poly_ia3": {"skill": IA3(), "private_skill": IA3()},
}
TASK = 1


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def run(request):
    adapters = Adapters(
        router=LearnedRouter(),
        n_tasks=3,
        n_skills=2,
        n_splits=2,
        sites=(".*/query", ".*/wo"),
        **request.param,
    )
    leaves = flatten(parameter_shapes(Transformer(CONFIG, adapters))[0])
    rng = np.random.default_rng(0)
    arrays = {
        path: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32) for path, leaf in sorted(leaves.items())
    }
    model = Transformer(CONFIG, adapters)
    weights = OpenRun(model, TaskTable(("a", "b", "c")), Origin(), epath.Path("0"), of_tree(arrays))
    return weights, adapters, unflatten(arrays)


def test_the_merged_t5_has_the_tasks_logits(run):
    weights, adapters, parameters = run
    tokens, ids = np.array([[3, 5, 2]], np.int32), np.array([TASK], np.int32)
    expected = Transformer(CONFIG, adapters).apply({"params": parameters}, tokens, tokens, ids)
    plain = unflatten({path: tensor.load() for path, tensor in merged(weights, adapters, TASK).items()})
    got = jax.jit(Transformer(CONFIG).apply)({"params": plain}, tokens, tokens)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_peft_lora_holds_the_merged_update_exactly(run, tmp_path):
    weights, adapters, parameters = run
    if not isinstance(adapters.skill, LoRA | MTLLoRA):
        with pytest.raises(UserError, match="skills are IA3, and this format holds LoRA"):
            write_peft_lora(str(tmp_path), weights, adapters, TASK)
        return
    write_peft_lora(str(tmp_path), weights, adapters, TASK)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    stored = load_file(tmp_path / "adapter_model.safetensors")
    module = "base_model.model.decoder.block.0.layer.2.DenseReluDense.wo"
    a, b = stored[f"{module}.lora_A.weight"], stored[f"{module}.lora_B.weight"]
    assert a.shape == (config["r"], 12)
    if isinstance(adapters.skill, MTLLoRA):
        assert config["r"] == adapters.skill.rank
    path = "decoder/layers_0/mlp/wo/kernel"
    update = merged(weights, adapters, TASK)[path].load() - flatten(parameters)[path]
    np.testing.assert_allclose((b @ a).T * config["lora_alpha"] / config["r"], update, atol=2e-6)


def test_skills_and_routers_that_pefts_poly_cannot_represent_are_refused(run, tmp_path):
    weights, adapters, _ = run
    with pytest.raises(UserError, match=r"does not compute; export one task|holds LoRA") as caught:
        write_peft_poly(str(tmp_path / "poly"), weights, adapters)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "poly").exists()
