"""New rows of a router are averages of the rows of old tasks."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import SharedRouter
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.transfer.rows import averaged_rows
from poly_jax.transfer.start import new_rows
from poly_jax.transfer.variants import VARIANTS


@pytest.fixture
def source(many):
    table = TaskTable(("a", "b", "c", "d"))
    return Restored(many.model, many.parameters, table, epath.Path("run"), Origin())


def test_a_new_row_is_the_mean_of_the_named_tasks_rows(many, source):
    rows = new_rows(source, VARIANTS["mhr-z"], ("d", "b"), n_new=2)
    for place in (("encoder", "layers_0", "attention", "query"), ("decoder", "layers_0", "mlp", "wo")):
        old, new = many.parameters, rows
        for name in (*place, "router", "logits"):
            old, new = old[name], new[name]
        expected = (old[3] + old[1]) / 2
        np.testing.assert_allclose(new, [expected, expected], rtol=1e-6)


def test_the_logits_of_scanned_layers_are_averaged_over_tasks_and_not_over_layers(many):
    config = dataclasses.replace(
        many.model.config, scan_layers=True, num_encoder_layers=2, num_decoder_layers=2
    )
    model = Transformer(config, many.model.adapters)
    shape = parameter_shapes(model)[0]["encoder"]["layers"]["attention"]["query"]["router"]["logits"].shape
    table = np.random.default_rng(0).normal(size=shape)
    assert shape[:2] == (2, 4)
    tree = {"encoder": {"layers": {"attention": {"query": {"router": {"logits": table}}}}}}
    (rows,) = averaged_rows(model, tree, (0, 2), 1)["encoder"]["layers"]["attention"]["query"][
        "router"
    ].values()
    np.testing.assert_allclose(rows, (table[:, [0]] + table[:, [2]]) / 2, rtol=1e-6)


def test_an_unknown_task_and_a_variant_without_rows_are_refused(source):
    with pytest.raises(
        UserError, match=r"^init_router_from: task 'e' is not in the table of 4 tasks .*; give"
    ):
        new_rows(source, VARIANTS["mhr"], ("e",), 1)
    for name in ("mhr-mu", "random", "full"):
        with pytest.raises(
            UserError, match=rf"^init_router_from is \('a',\), and variant '{name}' keeps no rows"
        ):
            new_rows(source, VARIANTS[name], ("a",), 1)


def test_a_router_without_rows_is_refused(many):
    shared = Transformer(many.model.config, dataclasses.replace(many.model.adapters, router=SharedRouter()))
    with pytest.raises(UserError, match="has no rows to start from; leave init_router_from unset"):
        averaged_rows(shared, {}, (0,), 1)
