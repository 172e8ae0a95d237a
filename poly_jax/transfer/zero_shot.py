"""Zero-shot use of a run on new tasks: the uniform average of its skills (mu)."""

import dataclasses

import jax

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.transformer import Transformer
from poly_jax.training.restore import Restored
from poly_jax.transfer.combined_skills import average_skills
from poly_jax.transfer.new_adapters import averaged_adapters
from poly_jax.weights.parameter_names import is_adapter_parameter, is_inventory
from poly_jax.weights.tree import merge, split


def averaged(restored: Restored, table: TaskTable) -> Restored:
    """Make a run's model for tasks that it has not seen, with the average of its skills (MHR-mu).

    See arXiv 2211.03831.

    Args:
      restored: the run's model.
      table: the new tasks.

    Raises:
      UserError: the model has no skills to average.
    """
    if restored.model.adapters is None:
        raise UserError(
            f"{restored.step} has no adapters, so there are no skills to average; give a run with adapters"
        )
    trained = restored.model.adapters
    adapters = dataclasses.replace(averaged_adapters(trained), n_tasks=len(table))
    adapted, backbone = split(restored.parameters, is_adapter_parameter)
    skills, _ = split(adapted, is_inventory)
    return dataclasses.replace(
        restored,
        model=Transformer(restored.model.config, adapters),
        parameters=merge(backbone, jax.jit(average_skills, static_argnums=1)(skills, trained.skill)),
        table=table,
    )
