"""Task ids outside the table are refused on the host, because a gather on a device would clamp them."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.routing.task_ids import check_task_ids


@pytest.mark.parametrize(
    ("ids", "named"), [([0, 4, 1], "task id 4"), ([2, -1], "task id -1"), ([7], "task id 7")]
)
def test_an_id_out_of_range_is_named_with_the_range(ids, named):
    with pytest.raises(UserError, match=named) as caught:
        check_task_ids(np.array(ids, np.int32), n_tasks=4)
    assert "give ids 0 to 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_id_of_the_table_is_accepted():
    check_task_ids(np.arange(4, dtype=np.int32), n_tasks=4)
    check_task_ids(np.zeros((0,), np.int32), n_tasks=1)
