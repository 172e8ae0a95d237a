"""The gin files of the models give the published shapes."""

import pytest

from poly_jax import configuration
from poly_jax.model.config import T5Config

# Parameter counts of the checkpoints on Hugging Face: google-t5/t5-*, google/t5-v1_1-*, mt5-* and byt5-*.
PUBLISHED = {
    "t5_1_0_small": 60_506_624,
    "t5_1_0_base": 222_903_552,
    "t5_1_0_large": 737_668_096,
    "t5_1_0_3b": 2_851_598_336,
    "t5_1_0_11b": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
}
NO_MODEL = {"t5_1_0_form", "t5_1_1_form"}
TRIALS = {"t5_1_0_tiny", "t5_1_1_tiny"}


def load(name):
    return configuration.load([f"models/{name}.gin"]).make(T5Config)


def parameters(c):
    attention = 4 * c.emb_dim * c.num_heads * c.head_dim
    mlp = (len(c.mlp_activations) + 1) * c.emb_dim * c.mlp_dim
    encoder = c.num_encoder_layers * (attention + mlp + 2 * c.emb_dim) + c.emb_dim
    decoder = c.num_decoder_layers * (2 * attention + mlp + 3 * c.emb_dim) + c.emb_dim
    biases = 2 * c.relative_attention_num_buckets * c.num_heads
    embeddings = c.vocab_size * c.emb_dim * (1 if c.logits_via_embedding else 2)
    return embeddings + encoder + decoder + biases


def test_every_model_file_is_tested():
    files = [name for name in configuration.shipped() if name.startswith("models/")]
    shipped = {name.removeprefix("models/").removesuffix(".gin") for name in files}
    assert shipped == set(PUBLISHED) | NO_MODEL | TRIALS


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shape_has_the_published_number_of_parameters(name):
    config = load(name)
    assert parameters(config) == PUBLISHED[name]
    assert config.logits_via_embedding == name.startswith("t5_1_0")
    assert config.mlp_activations == (("relu",) if name.startswith("t5_1_0") else ("gelu", "linear"))
    assert config.vocab_size == {"t5": 32128, "mt5": 250112, "byt5": 384}[name.split("_")[0]]


@pytest.mark.parametrize("size", ["small", "base", "large", "xl", "xxl"])
def test_the_encoder_of_byt5_is_three_times_as_deep_as_its_decoder(size):
    config = load(f"byt5_{size}")
    assert config.num_encoder_layers == 3 * config.num_decoder_layers


@pytest.mark.parametrize("name", sorted(TRIALS))
def test_tiny_models_are_tiny(name):
    config = load(name)
    assert (config.emb_dim, config.num_heads, config.head_dim, config.mlp_dim) == (64, 4, 16, 128)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)


def test_every_gin_file_starts_with_its_purpose():
    for name in configuration.shipped():
        first = (configuration.gin_root() / name).read_text().split("\n", 1)[0]
        assert first.startswith("# "), name
        assert len(first) > 20, name
