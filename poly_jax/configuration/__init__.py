"""The gin front end: finding gin files, loading them, and saying in one line what is wrong with them."""

from poly_jax.configuration.checks import binding_name
from poly_jax.configuration.explanation import explain_unset_bindings, one_line
from poly_jax.configuration.files import CONFIG_FILE, find, gin_root, run_config, shipped
from poly_jax.configuration.loaded import Loaded, current
from poly_jax.configuration.loading import Configuration, load
from poly_jax.configuration.reach import Reach, check_read
from poly_jax.configuration.seal import sealed
from poly_jax.configuration.texts import Texts

__all__ = [
    "CONFIG_FILE",
    "Configuration",
    "Loaded",
    "Reach",
    "Texts",
    "binding_name",
    "check_read",
    "current",
    "explain_unset_bindings",
    "find",
    "gin_root",
    "load",
    "one_line",
    "run_config",
    "sealed",
    "shipped",
]
