"""T5 in Flax linen with adapters fused into its projections; loss, scoring, decoding."""
