"""The expert baseline of the embedded benchmark finds the skills of a task by its name, in any form."""

import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.routing.router import Sizes
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.tasks.skillbench.true_skills import TrueSkillsRouter

TASKS = (benchmark().train[3], benchmark().heldout[1], benchmark().tuning[0])


@pytest.mark.parametrize(("form", "data_seed"), [("named", 0), ("named", 4), ("nameless", 0)])
def test_a_task_mixes_the_skills_that_it_is_made_of(form, data_seed):
    names = [registered_name(task.name, form, data_seed) for task in TASKS]
    adapters = Adapters(LoRA(), TrueSkillsRouter(), n_tasks=1).for_tasks(names)
    assert (adapters.inventory_size, adapters.n_tasks) == (8, 3)
    weights = np.asarray(adapters.router.weights({}, np.arange(3), Sizes(3, 2, 8), None))
    assert weights.shape == (3, 2, 8)
    for task, mixes in zip(TASKS, weights, strict=True):
        for mix in mixes:
            assert tuple(np.flatnonzero(mix)) == task.skills
            np.testing.assert_allclose(mix[list(task.skills)], 1 / len(task.skills), rtol=1e-6)


def test_a_task_of_another_benchmark_is_reported_by_name():
    with pytest.raises(UserError, match="not 'my_task'"):
        TrueSkillsRouter().for_tasks(("my_task",))
