"""`poly-jax routing` of a run whose router looks at inputs: mixes are measured on examples."""

import json

import jax
import numpy as np
import pytest
from scipy.special import entr

from poly_jax import cli, configuration
from poly_jax.data.batches import eval_batches
from poly_jax.training.mesh import Partitioning
from poly_jax.training.restore import restore

FINE = ("Adapters.granularity = 'fine'", "Adapters.n_splits = 1")
SITES = ("encoder/layers_0/attention/query", "encoder/layers_1/attention/query", "decoder/layers_0/mlp/wo")


def analyse(run, tmp_path, *flags):
    assert cli.main(["routing", f"--run={run.folder}", f"--output_dir={tmp_path / 'out'}", *flags]) == 0
    return json.loads((tmp_path / "out" / "routing.json").read_text())


def site_weights(intermediates, site, scanned):
    """What a site's router sowed for a batch, and whether the site is in the encoder."""
    parts = site.split("/")
    if scanned:
        number = int(parts[1].removeprefix("layers_"))
        parts[1] = "layers"
    tree = intermediates
    for part in (*parts, "input_router"):
        tree = tree[part]
    (weights,) = tree["weights"]
    return np.asarray(weights[number] if scanned else weights, np.float64)


@pytest.mark.parametrize(
    ("router", "scanned"), [("TokenRouter", False), ("TokenRouter", True), ("SMEARRouter", False)]
)
def test_a_tasks_weights_are_means_over_the_tokens_or_examples_that_are_not_padding(
    make_run, tasks, tmp_path, router, scanned
):
    rng = np.random.default_rng(0)
    settings = (*FINE, f"Adapters.router = @{router}()", f"T5Config.scan_layers = {scanned}")
    run = make_run(settings, added=lambda path, shape: rng.normal(size=shape))
    found = analyse(run, tmp_path, "--examples=5")

    experiment = configuration.load([configuration.run_config(run.folder)]).experiment()
    restored = restore(experiment, run.folder, Partitioning().mesh())
    apply = jax.jit(
        lambda *arrays: restored.model.apply(
            {"params": restored.parameters}, *arrays, mutable=["intermediates"]
        )[1]["intermediates"]
    )
    shown, entropies = [], {site: [] for site in SITES}
    for task in tasks:
        # One example at a time, without a second path for batches.
        rows = {site: [] for site in SITES}
        batches = eval_batches(
            task, restored.table, split="train", sequence_length={"inputs": 8, "targets": 4}, batch_size=1
        )
        for batch, _ in zip(batches, range(5), strict=False):
            inputs, before, ids = (
                batch[name] for name in ("encoder_input_tokens", "decoder_input_tokens", "task_ids")
            )
            sown = apply(inputs, before, ids)
            # A decoder's input begins with 0 and is as long as its target.
            lengths = {"encoder": (inputs > 0).sum(), "decoder": (batch["decoder_target_tokens"] > 0).sum()}
            for site in SITES:
                weights = site_weights(sown, site, scanned)[0]
                if router == "TokenRouter":
                    weights = weights[: lengths[site.partition("/")[0]]]
                rows[site].append(weights.reshape(-1, 3))
        rows = {site: np.concatenate(parts) for site, parts in rows.items()}
        shown.append(rows[found["shown_place"]].mean(0))
        for site, every in rows.items():
            entropies[site].append(entr(every / every.sum(-1, keepdims=True)).sum(-1).mean())
    np.testing.assert_allclose(np.array(found["shown_weights"])[:, 0], shown, atol=2e-5)
    assert set(found["places"]) == set(SITES) == set(found["load"]["effective_skills"])
    for site, each in entropies.items():
        assert found["load"]["effective_skills"][site] == pytest.approx(np.exp(np.mean(each)), rel=1e-4)
    page = (tmp_path / "out" / "routing.html").read_text()
    over = "tokens of the first 5 examples" if router == "TokenRouter" else "means over the first 5 examples"
    assert over in page


def test_examples_are_refused_for_a_router_that_does_not_look_at_them(make_run, tmp_path, capsys):
    run = make_run()
    flags = [f"--run={run.folder}", f"--output_dir={tmp_path / 'out'}", "--examples=5"]
    assert cli.main(["routing", *flags]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--examples=5 is for routers that look at inputs" in error
    assert "LearnedRouter" in error
    assert not (tmp_path / "out").exists()
