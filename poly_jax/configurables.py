"""The registry of gin: every class, function and program that a configuration may name.

This is the one place that makes them known to gin. The classes are registered from outside and stay plain:
called in code, they take their arguments and their own defaults. Only what `poly_jax.configuration` makes has
the values that a configuration binds.
"""

import functools
import importlib

import gin

CONFIGURABLES: dict[str, tuple[str, ...]] = {
    "poly_jax.adapters.config": ("Adapters",),
    "poly_jax.adapters.ia3": ("IA3",),
    "poly_jax.adapters.lora": ("LoRA",),
    "poly_jax.adapters.mtl_lora": ("MTLLoRA",),
    "poly_jax.data.vocabularies": ("byte", "sentencepiece"),
    "poly_jax.evaluation.online": ("OnlineEvaluation",),
    "poly_jax.experiment": ("Data", "Experiment"),
    "poly_jax.model.choice_loss": ("ChoiceLoss",),
    "poly_jax.model.config": ("T5Config",),
    "poly_jax.model.generate": ("Decoding",),
    "poly_jax.model.loss": ("TokenLoss",),
    "poly_jax.routing.arrow": ("ArrowRouter",),
    "poly_jax.routing.fixed": ("AverageRouter", "PrivateRouter", "SharedRouter"),
    "poly_jax.training.ibp_prior": ("IBPPrior",),
    "poly_jax.routing.learned": ("LearnedRouter",),
    "poly_jax.routing.phatgoose": ("PHATGOOSERouter",),
    "poly_jax.routing.random_rows": ("RandomRouter",),
    "poly_jax.routing.smear": ("SMEARRouter",),
    "poly_jax.routing.table": ("TableRouter",),
    "poly_jax.routing.token_router": ("TokenRouter",),
    "poly_jax.tasks.crossfit.tasks": ("register",),
    "poly_jax.tasks.crossfit.training_steps": ("training_steps",),
    "poly_jax.tasks.from_files.tasks": ("register",),
    "poly_jax.tasks.skillbench.backbone": ("backbone", "backbone_in_words"),
    "poly_jax.tasks.skillbench.tasks": ("register",),
    "poly_jax.tasks.skillbench.true_skills": ("TrueSkillsRouter",),
    "poly_jax.tasks.super_natural_instructions.tasks": ("register",),
    "poly_jax.tasks.t0_few_shot.tasks": ("register",),
    "poly_jax.tasks.t0_pretraining.tasks": ("register",),
    "poly_jax.tasks.t0_score_eval.tasks": ("register",),
    "poly_jax.training.mesh": ("Partitioning",),
    "poly_jax.training.optimizer": ("Optimizer",),
    "poly_jax.transfer.adapted_from": ("AdaptedFrom",),
    "poly_jax.transfer.gradient_free_search": ("SearchedWeights", "SelectedSkills"),
    "poly_jax.transfer.merging": ("DareLinear", "DareTies", "MagnitudePrune", "TaskArithmetic", "Ties"),
}
"""Names by the Python module that defines them."""

PROGRAMS: dict[str, tuple[str, ...]] = {
    "poly_jax.evaluation.evaluate": ("evaluate",),
    "poly_jax.evaluation.infer": ("infer",),
    "poly_jax.prepare.prepare": ("prepare",),
    "poly_jax.sweep.method": ("Method",),
    "poly_jax.sweep.run_sweep": ("sweep",),
    "poly_jax.training.train": ("train",),
    "poly_jax.transfer.adapt": ("adapt",),
}
"""Programs and their arguments, apart from the others because t5x's programs have the same names."""

OF_A_RUN = ("train", "adapt", "evaluate", "infer")
"""Programs whose settings the configuration of a training run holds: those after `train` read them later."""

NAMESPACES = {
    "poly_jax.data.vocabularies": "vocabularies",
    "poly_jax.tasks.crossfit.tasks": "crossfit",
    "poly_jax.tasks.crossfit.training_steps": "crossfit",
    "poly_jax.tasks.from_files.tasks": "from_files",
    "poly_jax.tasks.skillbench.backbone": "skillbench",
    "poly_jax.tasks.skillbench.tasks": "skillbench",
    "poly_jax.tasks.skillbench.true_skills": "skillbench",
    "poly_jax.tasks.super_natural_instructions.tasks": "super_natural_instructions",
    "poly_jax.tasks.t0_few_shot.tasks": "t0_few_shot",
    "poly_jax.tasks.t0_pretraining.tasks": "t0_pretraining",
    "poly_jax.tasks.t0_score_eval.tasks": "t0_score_eval",
    # What the module was called once: a sweep's results are found again by the full names of its bindings.
    "poly_jax.transfer.gradient_free_search": "poly_jax.transfer.choosing",
}
"""The module in gin's names, where it is not the Python module."""

NOT_BOUND = {
    "adapt": ["texts"],
    "prepare": ["output_dir", "configuration"],
    "sweep": ["output_dir", "configuration"],
    "train": ["texts"],
}
"""Parameters that the command line gives to a program, so that a configuration cannot bind them."""

MADE_BY_DEFAULT = {
    "poly_jax.experiment.Experiment": {"decoding": "@Decoding()"},
    "poly_jax.transfer.adapt.adapt": {
        "experiment": "@Experiment()",
        "optimizer": "@adapt/Optimizer()",
        "loss": "@adapt/TokenLoss()",
        "partitioning": "@Partitioning()",
    },
    "poly_jax.evaluation.evaluate.evaluate": {"partitioning": "@Partitioning()"},
    "poly_jax.evaluation.infer.infer": {"partitioning": "@Partitioning()"},
    "poly_jax.prepare.prepare.prepare": {"data": "@Data()"},
    "poly_jax.training.train.train": {
        "optimizer": "@Optimizer()",
        "loss": "@TokenLoss()",
        "partitioning": "@Partitioning()",
        "evaluation": "@OnlineEvaluation()",
    },
}
"""Bindings of the parameters that a configuration leaves out, or binds to None; by full gin name."""

PATHS = {
    "crossfit.register": ("folder", "descriptions"),
    "crossfit.training_steps": ("folder",),
    "from_files.register": ("folder",),
    "poly_jax.experiment.Data": ("cache_dir",),
    "poly_jax.experiment.Experiment": ("backbone",),
    "poly_jax.routing.table.TableRouter": ("path",),
    "poly_jax.sweep.method.Method": ("run",),
    "poly_jax.transfer.adapted_from.AdaptedFrom": ("step",),
    "super_natural_instructions.register": ("folder",),
    "t0_few_shot.register": ("folder",),
    "t0_pretraining.register": ("folder",),
    "t0_score_eval.register": ("folder",),
    "vocabularies.sentencepiece": ("path",),
}
"""Parameters that are paths, by full gin name: `~` and environment variables in them are expanded."""


def import_configurables(programs: bool = True) -> None:
    """Register everything, so that gin files can bind it by name.

    Args:
      programs: whether the programs are registered too.
    """
    for modules in (CONFIGURABLES, PROGRAMS) if programs else (CONFIGURABLES,):
        for module in modules:
            _register(module, modules[module])


@functools.cache
def _register(module: str, names: tuple[str, ...]) -> None:
    content = importlib.import_module(module)
    with gin.unlock_config():
        for name in names:
            gin.external_configurable(
                getattr(content, name),
                name,
                module=NAMESPACES.get(module, module),
                denylist=NOT_BOUND.get(name),
            )
