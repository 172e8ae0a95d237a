"""The modules that register configurables with gin: they are imported before any gin file is read."""

import importlib

MODULES = (
    "poly_jax.adapters.config",
    "poly_jax.adapters.ia3",
    "poly_jax.adapters.lora",
    "poly_jax.data.vocabularies",
    "poly_jax.experiment",
    "poly_jax.model.choice_loss",
    "poly_jax.model.config",
    "poly_jax.model.generate",
    "poly_jax.model.loss",
    "poly_jax.routing.fixed",
    "poly_jax.routing.ibp",
    "poly_jax.routing.learned",
    "poly_jax.routing.random_rows",
    "poly_jax.routing.table",
    "poly_jax.tasks.skillbench.backbone",
    "poly_jax.tasks.skillbench.tasks",
    "poly_jax.tasks.skillbench.true_skills",
    "poly_jax.tasks.super_natural_instructions.tasks",
    "poly_jax.tasks.t0_few_shot.tasks",
    "poly_jax.training.mesh",
    "poly_jax.training.optimizer",
    "poly_jax.transfer.adapted_from",
)

# Programs, and what imports them. Other systems' programs have the same names.
PROGRAMS = (
    "poly_jax.evaluation.evaluate",
    "poly_jax.evaluation.infer",
    "poly_jax.sweep.run_sweep",
    "poly_jax.training.train",
    "poly_jax.transfer.adapt",
)


def import_configurables(programs: bool = True) -> None:
    """Import every module that registers a configurable, so that gin files can bind it by name."""
    for module in MODULES + (PROGRAMS if programs else ()):
        importlib.import_module(module)
