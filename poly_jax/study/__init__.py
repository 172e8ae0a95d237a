"""The comparison of methods on the embedded benchmark, for `poly-jax demo` and `poly-jax reproduce`."""
