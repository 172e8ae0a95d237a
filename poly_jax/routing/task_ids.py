"""The check that a task id has a row in the router's table."""

import numpy as np

from poly_jax.counted import counted
from poly_jax.errors import UserError


def check_task_ids(task_ids: np.ndarray, n_tasks: int) -> None:
    """Raise a UserError where an id is outside [0, n_tasks).

    Call it on the host before anything runs: on a device, an id out of range would silently read another row.
    """
    wrong = task_ids[(task_ids < 0) | (task_ids >= n_tasks)]
    if wrong.size:
        raise UserError(
            f"task id {int(wrong[0])} is not in the table of {counted(n_tasks, 'task')}; give ids 0 to"
            f" {n_tasks - 1}"
        )
