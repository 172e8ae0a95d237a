"""`poly-jax routing` on runs of known weights."""

import base64
import functools
import html.parser
import json
import re

import jax
import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.analysis.initial_values import drawn_adapters
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.tree import flatten

# Task names, in the order of a table, that must be escaped in a figure or a page.
ODD = ("<b>", "a&b", "cost_$x^{", "d")
GROUPS = {"<b>": "<i>one</i>", "a&b": "<i>one</i>", "cost_$x^{": "$_{", "d": "$_{"}


def preferring(path, shape):
    """Offsets with which the first two tasks prefer skill 0 and the last two skill 2; skills differ too."""
    if path.endswith("router/logits"):
        rows = np.array([[9.0, -9, -9], [9, -9, -9], [-9, -9, 9], [-9, -9, 9]])
        return np.broadcast_to(rows[:, None], shape)
    return 0.5


def analyse(run, tmp_path, *flags):
    assert cli.main(["routing", f"--run={run.folder}", f"--output_dir={tmp_path / 'out'}", *flags]) == 0
    return json.loads((tmp_path / "out" / "routing.json").read_text())


class Reader(html.parser.HTMLParser):
    """Collects the text of table cells and the sources of images."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name == "src"]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.slow
def test_page_json_and_figures_show_the_structure_that_was_put_into_the_weights(make_run, tmp_path):
    run = make_run(names=ODD, added=preferring)
    (tmp_path / "groups.json").write_text(json.dumps(GROUPS))
    found = analyse(run, tmp_path, "--reference=groups.json")
    assert [task["cluster"] for task in found["tasks"]] in ([1, 1, 2, 2], [2, 2, 1, 1])
    assert [task["nearest"] for task in found["tasks"]] == [ODD[i] for i in (1, 0, 3, 2)]
    assert [task["strongest"][0]["skill"] for task in found["tasks"]] == [0, 0, 2, 2]
    assert found["overall"]["sparsity"] > 0.99
    assert found["overall"]["usage_entropy"] == pytest.approx(np.log(2) / np.log(3), abs=3e-3)
    assert found["overall"]["discreteness"] > 0.99
    assert list(found["layers"]) == ["encoder/layers_0", "encoder/layers_1", "decoder/layers_0"]
    assert found["reference"]["agreement"]["adjusted_rand"] == 1
    assert found["drift"]["overall"]["skill lora_b"]["rms"] == pytest.approx(0.5)
    assert found["drift"]["overall"]["router logits"]["rms"] == pytest.approx(9, rel=1e-3)

    written = (tmp_path / "out" / "routing.html").read_text()
    page = Reader(written)
    pictures = sorted(path.stem for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["drift", "layers", "similarity", "tasks", "usage"]
    assert len(page.sources) == len(pictures)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://", written)
    held = json.loads(re.search(r'<script type="application/json" id="weights">(.*)</script>', written)[1])
    assert held["tasks"] == [ODD[i] for i in found["clusters"]["order"]]
    assert held["routers"][0]["place"] == found["shown_place"]
    assert sorted(router["place"] for router in held["routers"]) == sorted(found["places"])
    router = held["routers"][0]
    numbers = np.frombuffer(base64.b64decode(router["weights"]), "<u2")
    weights = router["low"] + (router["high"] - router["low"]) * numbers.astype(np.float64) / 65535
    expected = np.array(found["shown_weights"])[found["clusters"]["order"]]
    np.testing.assert_allclose(weights.reshape(expected.shape), expected, atol=2e-5)
    # Names are shown as text and not read as markup.
    assert set(ODD) | set(GROUPS.values()) <= {text.strip() for text in page.text}
    assert "i" not in page.tags


@pytest.mark.slow
def test_gradients_are_those_of_the_loss_on_the_first_examples_of_a_task(make_run, tasks, tmp_path):
    from poly_jax.data.batches import eval_batches
    from poly_jax.model.loss import TokenLoss
    from poly_jax.training.mesh import Partitioning
    from poly_jax.training.restore import restore
    from poly_jax.weights.parameter_names import is_inventory
    from poly_jax.weights.tree import merge, split

    rng = np.random.default_rng(0)
    run = make_run(added=lambda path, shape: rng.normal(size=shape))
    found = analyse(run, tmp_path, "--gradients=5")
    # Recompute with one example at a time instead of batches.
    experiment = configuration.load([configuration.run_config(run.folder)]).experiment()
    restored = restore(experiment, run.folder, Partitioning().mesh())
    shared, rest = split(restored.parameters, is_inventory)

    @jax.jit
    def gradient(shared, batch):
        apply = functools.partial(restored.model.apply, {"params": merge(rest, shared)})
        return TokenLoss().totals(apply, batch)["tokens"]

    vectors = []
    for name in tasks:
        rows = eval_batches(
            name, restored.table, split="train", sequence_length={"inputs": 8, "targets": 4}, batch_size=1
        )
        trees = [jax.grad(gradient)(shared, row) for row, _ in zip(rows, range(5), strict=False)]
        summed = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *trees)
        vectors.append(np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(summed)]))
    unit = [vector / np.linalg.norm(vector) for vector in vectors]
    np.testing.assert_allclose(found["gradients"]["cosines"], np.array(unit) @ np.array(unit).T, atol=1e-4)


@pytest.mark.slow
def test_scanned_layers_are_reported_as_separate_layers_are(make_run, tasks, tmp_path):
    run = make_run(["T5Config.scan_layers = True"], added=preferring)
    found = analyse(run, tmp_path, "--gradients=2")
    assert list(found["layers"]) == ["encoder/layers_0", "encoder/layers_1", "decoder/layers_0"]
    assert list(found["gradients"]["layers"]) == list(found["layers"])
    # Tasks without a common skill share no parameters; tasks with the same skills do.
    cosines = np.array(found["gradients"]["cosines"])
    np.testing.assert_allclose(cosines[:2, 2:], 0, atol=0.02)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert np.abs(cosines[[0, 2], [1, 3]]).min() > 0.03
    # The temporary file of the gradients is deleted.
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".json", ".html"}
    page = Reader((tmp_path / "out" / "routing.html").read_text())
    assert len(page.sources) == len(list((tmp_path / "out").glob("*.png"))) == 7
    assert found["drift"]["overall"]["router logits"]["rms"] == pytest.approx(9, rel=1e-3)
    assert [task["strongest"][0]["skill"] for task in found["tasks"]] == [0, 0, 2, 2]


@pytest.mark.parametrize("scan", [False, True])
def test_initial_values_equal_those_that_training_starts_from(scan):
    from poly_jax.adapters.config import Adapters
    from poly_jax.adapters.lora import LoRA
    from poly_jax.model.config import T5Config
    from poly_jax.model.transformer import Transformer
    from poly_jax.routing.learned import LearnedRouter
    from poly_jax.training.mesh import Partitioning
    from poly_jax.training.start import fresh_start

    config = T5Config(
        vocab_size=32,
        emb_dim=8,
        num_heads=2,
        head_dim=4,
        mlp_dim=8,
        num_encoder_layers=2,
        num_decoder_layers=1,
        scan_layers=scan,
    )
    adapters = Adapters(LoRA(), LearnedRouter(), n_tasks=3, sites=("encoder/mlp/wo",))
    model = Transformer(config, adapters)
    trained = fresh_start(model, "random", "adapters", 7, Partitioning().mesh()).trained
    expected = flatten(unstack_layers(jax.device_get(trained)))
    found = drawn_adapters(model, 7)
    assert set(found) == set(expected)
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.mark.parametrize(
    ("bindings", "places"),
    [
        (["Adapters.granularity = 'stack'", "LearnedRouter.scores = 'l2'"], ["encoder", "decoder"]),
        (["Adapters.router = @AverageRouter()"], ["model"]),
        (["Adapters.router = @SharedRouter()"], ["model"]),
        (["Adapters.router = @PrivateRouter()"], ["model"]),
    ],
)
def test_every_router_has_a_page(make_run, tmp_path, bindings, places):
    found = analyse(make_run(bindings), tmp_path)
    assert list(found["places"]) == places
    assert {one["rms"] for one in found["drift"]["overall"].values()} == {0}
    page = Reader((tmp_path / "out" / "routing.html").read_text())
    assert {task["name"] for task in found["tasks"]} <= {text.strip() for text in page.text}


def test_each_private_skill_has_its_own_drift(make_run, tmp_path):
    def added(path, shape):
        if "private" not in path:
            return 0.0
        return np.broadcast_to(np.arange(4.0)[None, :, None, None], shape)

    run = make_run(["Adapters.private_skill = @own/LoRA()"], added=added)
    found = analyse(run, tmp_path)
    np.testing.assert_allclose(found["drift"]["tasks"]["own skill lora_b"], [0, 1, 2, 3])


def test_an_adapted_run_whose_source_is_gone_is_shown_with_a_notice(make_run, tmp_path):
    began = ["AdaptedFrom.step = 'gone/checkpoints/7'", "AdaptedFrom.variant = 'mhr'", "AdaptedFrom.seed = 5"]
    found = analyse(make_run(began, names=["new"], operative=""), tmp_path)
    assert found["drift"]["overall"] == {}
    assert (
        "gone/checkpoints/7, which this run was adapted from, and that folder is gone"
        in found["drift"]["note"]
    )
    assert [task["nearest"] for task in found["tasks"]] == [None]
    assert found["drift"]["note"] in (tmp_path / "out" / "routing.html").read_text()


def test_a_run_that_cannot_be_analysed_is_refused_in_one_line(make_run, tmp_path, capsys):
    run = make_run(names=["new"])
    command = ["routing", f"--run={run.folder}", "--output_dir=out"]
    assert cli.main([*command, "--gradients=4"]) == 1
    assert "only one" in capsys.readouterr().err
    assert cli.main([*command, "--gin.Experiment.adapters=None"]) == 1
    shown = capsys.readouterr().err
    assert "has no adapters" in shown
    assert shown.count("\n") == 1
    (tmp_path / "out").write_text("")
    assert cli.main(command) == 1
    assert "is a file" in capsys.readouterr().err
