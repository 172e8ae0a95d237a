"""Zero-shot evaluation with the average of the skills."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.transfer.zero_shot import averaged

NEW = TaskTable(("a", "b", "c", "d", "e", "f"))


def test_the_averaged_model_equals_a_uniform_mix_of_all_skills(many, new_tasks):
    old = Restored(many.model, many.parameters, TaskTable(("k", "l", "m", "n")), epath.Path("run"), Origin())
    new = averaged(old, NEW)
    uniform = Transformer(
        many.model.config, dataclasses.replace(many.model.adapters, router=AverageRouter(), n_tasks=1)
    )
    batch = (new_tasks[0]["encoder_input_tokens"], new_tasks[0]["decoder_input_tokens"])
    ids = np.array([5, 0, 3, 1, 2])
    got = jax.jit(new.model.apply)({"params": new.parameters}, *batch, ids)
    expected = jax.jit(uniform.apply)({"params": many.parameters}, *batch, ids)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert new.table == NEW


def test_a_model_without_adapters_is_refused(many):
    bare = Restored(Transformer(many.model.config), {}, NEW, epath.Path("run"), Origin())
    with pytest.raises(UserError, match="no adapters"):
        averaged(bare, NEW)
