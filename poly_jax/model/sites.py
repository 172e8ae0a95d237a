"""The linear maps of a T5 that adapters can attach to."""

from poly_jax.model.config import T5Config


def sites(config: T5Config) -> dict[str, tuple[int, int]]:
    """Input and output width of every projection, by site path.

    A site path is `stack/sublayer/projection` without a layer index, such as
    `decoder/encoder_decoder_attention/query`: all layers of a stack are adapted alike.
    """
    heads = config.num_heads * config.head_dim
    attention = {
        "query": (config.emb_dim, heads),
        "key": (config.emb_dim, heads),
        "value": (config.emb_dim, heads),
        "out": (heads, config.emb_dim),
    }
    mlp = {name: (config.emb_dim, config.mlp_dim) for name in config.mlp_inputs}
    mlp["wo"] = (config.mlp_dim, config.emb_dim)
    sublayers = {
        "encoder/attention": attention,
        "encoder/mlp": mlp,
        "decoder/self_attention": attention,
        "decoder/encoder_decoder_attention": attention,
        "decoder/mlp": mlp,
    }
    return {f"{sub}/{name}": shape for sub, maps in sublayers.items() for name, shape in maps.items()}
