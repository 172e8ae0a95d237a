"""The table of peaks against JAX's own, which its kernels for TPUs use."""

import pytest

from poly_jax.launch.slices import GENERATIONS
from poly_jax.planning.peaks import PEAKS

tpu_info = pytest.importorskip("jax._src.pallas.mosaic.tpu_info")
CORES = {"v4": 2, "v5e": 1, "v5p": 2, "v6e": 1, "v7x": 1}


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_chip_has_the_peaks_that_jax_says(name):
    version = tpu_info.ChipVersion({"v7x": "7x"}.get(name, name))
    try:
        theirs = tpu_info.get_tpu_info_for_chip(version, CORES[name])
    except (AttributeError, ValueError) as error:
        pytest.skip(f"this JAX's private table does not have {name}: {error}")
    # JAX's figures are those of a core, of which v4, v5p and v7x have two.
    cores, ours = version.num_physical_tensor_cores_per_chip, PEAKS[name]
    assert ours.bfloat16 == pytest.approx(theirs.bf16_ops_per_second * cores, rel=0.01)
    assert ours.hbm_bytes == pytest.approx(theirs.hbm_capacity_bytes * cores, rel=0.01)


def test_every_generation_that_can_be_rented_has_peaks():
    assert set(PEAKS) == set(GENERATIONS)
