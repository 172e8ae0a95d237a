"""PEFT's logits from folders that were once misread as other adapters or refused unnecessarily."""

import jax
import numpy as np
import pytest

import poly_jax
from poly_jax import cli

pytestmark = pytest.mark.usefixtures("own_folder")

# The base is ill-conditioned: 1e-6 more in a kernel of its first layer moves logits by 2e-3. PEFT takes the
# SVD of PiSSA in float32, so that its logits differ by 5e-4 of 26 from the formula in float64.
TOLERANCES = {"peft_changed_base/pissa": 1e-3}
EXACT = ("alpha_pattern", "bias_all", "ia3_wi1_wo", "layers_first", "layers_to_transform", "rank_pattern")


def logits(model, expected):
    """Logits for the targets, which the decoder reads shifted by one position, after the start id 0."""
    ids = np.zeros(len(expected["inputs"]), np.int32)
    shifted = np.pad(expected["targets"], ((0, 0), (1, 0)))[:, :-1]
    apply = jax.jit(model.restored.model.apply)
    return apply({"params": model.restored.parameters}, expected["inputs"], shifted, ids)


@pytest.fixture(scope="session")
def base(shared_cases):
    return shared_cases / "peft_changed_base" / "base"


def test_the_base_has_the_logits_of_transformers(base):
    expected = np.load(base / "expected.npz")
    np.testing.assert_allclose(logits(poly_jax.load(base), expected), expected["logits"], atol=1e-4)


@pytest.mark.parametrize("case", ["peft_changed_base/pissa", *(f"peft_exact_but_refused/{n}" for n in EXACT)])
def test_attached_adapters_have_the_logits_of_peft(shared_cases, base, case):
    expected = np.load(shared_cases / case / "expected.npz")
    model = poly_jax.load(base, vocabulary="bytes").attach_checkpoint(shared_cases / case)
    tolerance = TOLERANCES.get(case, 1e-4)
    np.testing.assert_allclose(logits(model, expected), expected["logits"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["peft_changed_base/pissa", "peft_exact_but_refused/layers_first"])
def test_imported_adapters_have_the_logits_of_peft(shared_cases, base, case):
    expected = np.load(shared_cases / case / "expected.npz")
    arguments = [f"--from={shared_cases / case}", f"--backbone={base}", "--output=run"]
    assert cli.main(["import", *arguments]) == 0
    got = logits(poly_jax.load("run", vocabulary="bytes"), expected)
    tolerance = TOLERANCES.get(case, 1e-4)
    np.testing.assert_allclose(got, expected["logits"], rtol=0, atol=tolerance)


def test_an_adapter_with_a_tensor_of_nan_is_refused_with_the_name_of_the_tensor(
    shared_cases, base, tmp_path, capsys
):
    arguments = [f"--from={shared_cases / 'peft_nan'}", f"--backbone={base}", "--output=run"]
    assert cli.main(["import", *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "numbers that are NaN or infinite" in shown
    assert "base_model.model." in shown
    assert not (tmp_path / "run").exists()
