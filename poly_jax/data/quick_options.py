"""Options of TensorFlow for pipelines that are read once."""

from poly_jax.data.quiet import tf


def quick_options() -> tf.data.Options:
    """Options for a pipeline that lives for a moment: its optimisation would take longer than it saves."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
