"""Multi-task training of a frozen T5 with a routed inventory of adapters."""

import importlib
from typing import Any

__version__ = "0.1.0"

# What Python users start from; loaded when it is asked for, so that `import poly_jax` stays light.
_LAZY = {
    "Adapters": "poly_jax.adapters.config",
    "Decoding": "poly_jax.model.generate",
    "IA3": "poly_jax.adapters.ia3",
    "LearnedRouter": "poly_jax.routing.learned",
    "LoRA": "poly_jax.adapters.lora",
    "MTLLoRA": "poly_jax.adapters.mtl_lora",
    "Model": "poly_jax.interface.model",
    "Partitioning": "poly_jax.training.mesh",
    "UserError": "poly_jax.errors",
    "load": "poly_jax.interface.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
