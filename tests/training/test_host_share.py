"""Each host reads the rows of a batch that its devices compute."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.training.host_share import HostShare, host_share, share_of
from poly_jax.training.mesh import Partitioning
from poly_jax.transfer.few_shot import FewShotBatches, draw_batch


def shares(processes):
    return [share_of(np.array(processes), name) for name in range(np.max(processes) + 1)]


def test_a_single_host_reads_all_rows():
    assert host_share(Partitioning().mesh()) == HostShare(0, 1)


def test_hosts_that_compute_different_rows_read_different_parts():
    # The axes are [data, fsdp, model]; there are two hosts with four devices each.
    assert shares([[[0, 0], [0, 0]], [[1, 1], [1, 1]]]) == [HostShare(0, 2), HostShare(1, 2)]
    # The parts follow the order of the rows and not the numbers of the hosts.
    assert shares([[[1], [1]], [[0], [0]]]) == [HostShare(1, 2), HostShare(0, 2)]


def test_hosts_that_compute_the_same_rows_read_the_same_part():
    assert shares([[[0, 1]]]) == [HostShare(0, 1)] * 2
    halves = [HostShare(0, 2), HostShare(0, 2), HostShare(1, 2), HostShare(1, 2)]
    assert shares([[[0, 1]], [[2, 3]]]) == halves


def test_hosts_that_share_only_some_of_their_rows_are_refused():
    with pytest.raises(UserError, match=r"\(2, 1, 3\) hosts share some of a batch's rows"):
        shares([[[0, 0, 1]], [[1, 2, 2]]])


def test_few_shot_batches_of_the_hosts_are_parts_of_one_batch():
    rows = {"task_ids": np.arange(10)}
    parts = [next(FewShotBatches(rows, 8, 3, HostShare(index, 2)))["task_ids"] for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), draw_batch(rows, 8, 3, 0)["task_ids"])
