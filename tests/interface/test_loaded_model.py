"""A loaded model predicts for tasks by name, and is the same after saving and loading."""

import dataclasses
import functools
import pathlib

import gin
import jax
import numpy as np
import pytest
import safetensors.numpy

import poly_jax
from poly_jax import cli
from poly_jax.configuration import sealed
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.weights import single_file
from poly_jax.weights.tree import flatten, unflatten

pytestmark = pytest.mark.usefixtures("own_folder")

CONFIG = T5Config(
    vocab_size=259,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
    relative_attention_max_distance=40,
)
MHR = poly_jax.Adapters(
    skill=poly_jax.LoRA(rank=2, alpha=6.0),
    router=poly_jax.LearnedRouter(sampling=False),
    n_tasks=3,
    n_skills=2,
    n_splits=2,
    sites=("encoder/.*",),
    granularity="layer",
)
TASKS = ["c", "a", "b"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The file of a byte-level T5 with random weights."""
    path = tmp_path_factory.mktemp("interface") / "t5.safetensors"
    draw = jax.jit(lambda key: init_parameters(Transformer(CONFIG), key)[0])
    single_file.save(path, draw(jax.random.key(0)), dataclasses.asdict(CONFIG))
    return path


@pytest.fixture(scope="module")
def bare(file):
    return poly_jax.load(
        file, vocabulary="bytes", decoding=poly_jax.Decoding(max_length=6), inputs_length=8, batch_size=2
    )


def noisy(attached):
    """The model with normal noise on its skills and routers."""
    changed = {
        name: leaf + jax.random.normal(jax.random.key(i), leaf.shape)
        if {"skills", "router"} & set(name.split("/"))
        else leaf
        for i, (name, leaf) in enumerate(flatten(attached.restored.parameters).items())
    }
    restored = dataclasses.replace(attached.restored, parameters=unflatten(changed))
    return dataclasses.replace(attached, restored=restored)


@pytest.fixture(scope="module")
def model(bare):
    """A model with adapters for three tasks, each of which changes the output."""
    return noisy(bare.attach(MHR, TASKS))


def test_a_backbone_has_its_configuration_and_no_tasks(bare):
    assert bare.config == CONFIG
    assert bare.tasks == ()
    assert len(bare.predict(["ab", "c", "abc"])) == 3


def test_fresh_adapters_change_nothing_and_list_their_tasks(bare):
    attached = bare.attach(MHR, TASKS)
    assert attached.tasks == ("a", "b", "c")
    texts = ["ab", "c"]
    assert attached.score(texts, ["x", "yz"], task="b") == pytest.approx(
        bare.score(texts, ["x", "yz"]), abs=1e-5
    )
    assert bare.tasks == ()


def test_scores_are_sums_of_log_probabilities(bare):
    ids = np.array([[ord("a") + 3, 1, 0, 0, 0, 0, 0, 0]])
    targets = np.array([[ord("x") + 3, 1]])
    parameters = bare.restored.parameters
    logits = np.asarray(
        jax.jit(bare.restored.model.apply)({"params": parameters}, ids, np.array([[0, targets[0, 0]]])),
        np.float64,
    )
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = sum(logs[0, i, token] for i, token in enumerate(targets[0]))
    assert bare.score(["a"], ["x"])[0] == pytest.approx(expected, abs=1e-4)


def test_a_task_has_its_own_adapters(model):
    scores = {task: model.score(["abc"], ["xyz"], task=task)[0] for task in model.tasks}
    assert len({round(score, 3) for score in scores.values()}) == 3


def test_the_module_underneath_refuses_ids_that_are_not_in_the_table(model):
    tokens = np.array([[5, 1, 0]])
    applied = functools.partial(
        model.restored.model.apply, {"params": model.restored.parameters}, tokens, tokens
    )
    assert applied(np.array([2])).shape == (1, 3, CONFIG.vocab_size)
    for wrong in (3, -1):
        for ids in (np.array([wrong]), np.array(wrong), jax.numpy.array([wrong])):
            with pytest.raises(poly_jax.UserError, match=f"task id {wrong} is not in the table of 3 tasks"):
                applied(ids)


def test_a_saved_model_is_the_same_when_it_is_loaded(model, file):
    model.save("run")
    again = poly_jax.load("run", vocabulary="bytes")
    assert (again.tasks, again.config, again.decoding) == (model.tasks, CONFIG, model.decoding)
    assert again.restored.model == model.restored.model
    assert again.restored.origin == model.restored.origin
    got, expected = flatten(again.restored.parameters), flatten(model.restored.parameters)
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)


def test_a_loaded_run_is_saved_with_its_configuration(model):
    model.save("run")
    again = poly_jax.load("run", vocabulary="bytes")
    again.save("copy")
    with open("run/config.gin") as one, open("copy/config.gin") as other:
        assert one.read() == other.read()


def test_loading_a_run_does_not_change_objects_made_later(model):
    made = poly_jax.LoRA(rank=2), poly_jax.LearnedRouter(), poly_jax.Decoding(max_length=10), T5Config()
    model.save("run")
    poly_jax.load("run", vocabulary="bytes")
    again = poly_jax.LoRA(rank=2), poly_jax.LearnedRouter(), poly_jax.Decoding(max_length=10), T5Config()
    assert again == made
    assert gin.config_str() == ""


def test_a_run_trained_on_another_mesh_is_loaded_on_the_available_devices(model):
    model.save("run")
    config = pathlib.Path("run/config.gin")
    config.write_text(sealed(config.read_text() + "\nPartitioning.model = 7\n"))
    again = poly_jax.load("run", vocabulary="bytes", batch_size=2, inputs_length=8)
    assert again.predict(["ab", "c"], task="b") == model.predict(["ab", "c"], task="b")
    mesh = poly_jax.Partitioning().mesh()
    assert poly_jax.load("run", mesh=mesh).mesh is mesh
    with pytest.raises(poly_jax.UserError, match=r"Partitioning\.model 7 does not divide"):
        poly_jax.load("run", mesh=poly_jax.Partitioning(model=7).mesh())


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_pefts_formula_on_an_exported_router_gives_the_weights_of_the_run(bare, scores):
    """PEFT's Poly mixes with the sigmoids of its logits, divided by their sum."""
    router = poly_jax.LearnedRouter(sampling=False, scores=scores)
    attached = noisy(bare.attach(dataclasses.replace(MHR, router=router), TASKS))
    attached.save("run")
    assert cli.main(["export", "--run=run", "--format=peft_poly", "--output=out"]) == 0

    def normalised(values):
        return values / values.sum(-1, keepdims=True)

    formulas = {
        "softmax": lambda z: normalised(np.exp(z)),
        "sigmoid": lambda z: normalised(1 / (1 + np.exp(-z))),
    }
    expected = [
        formulas[scores](np.asarray(leaf, np.float64))
        for name, leaf in flatten(attached.restored.parameters).items()
        if name.endswith("router/logits")
    ]
    exported = safetensors.numpy.load_file("out/adapter_model.safetensors")
    logits = [leaf for name, leaf in exported.items() if name.endswith("module_logits")]
    assert logits
    for leaf in logits:
        got = formulas["sigmoid"](leaf.astype(np.float64).reshape(3, 2, 2))
        assert min(np.abs(got - weights).max() for weights in expected) < 1e-5


def test_another_systems_adapters_are_attached_by_name(bare, tmp_path):
    rng = np.random.default_rng(0)
    prefix = "model.encoder.block.0.layer.0.SelfAttention.q"
    tensors = {
        f"{prefix}.lora_a": rng.normal(size=(1, 2, 16, 3)).astype(np.float32),
        f"{prefix}.lora_b": rng.normal(size=(1, 2, 3, 16)).astype(np.float32),
        f"{prefix}.selector.module_logits": np.array([[9, -9], [-9, 9]], np.float32),
    }
    safetensors.numpy.save_file(tensors, "mttl.safetensors")
    attached = bare.attach_checkpoint("mttl.safetensors", tasks=["second", "first"])
    assert attached.tasks == ("first", "second")
    leaves = flatten(attached.restored.parameters)
    np.testing.assert_array_equal(leaves["router/logits"][:, 0], [[-9, 9], [9, -9]])
    assert attached.config == CONFIG


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, bare: model.predict(["a"]), "say which of the 3 tasks is meant, such as task='a'"),
        (lambda model, bare: model.predict(["a"], task="d"), "task 'd' is not in the table of 3 tasks"),
        (lambda model, bare: model.predict("a", task="a"), "texts is a single text, 'a'; give a list"),
        (lambda model, bare: model.predict(["a", 3], task="a"), "texts has 3, which is no text"),
        (lambda model, bare: model.predict(["a"], task=1), "task is 1; give the name of one of a, b, c"),
        (lambda model, bare: model.score(["a"], [None], task="a"), "targets has None, which is no text"),
        (lambda model, bare: bare.attach(MHR, [1, 2, 3]), "tasks has 1, which is no text"),
        (lambda model, bare: bare.attach(MHR, "abc"), "tasks is a single text, 'abc'; give a list"),
        (lambda model, bare: bare.predict(["a"], task="a"), "task is 'a', and the T5 has no adapters"),
        (
            lambda model, bare: model.score(["a"], ["b", "c"], task="a"),
            "number of texts is 1 and that of targets 2",
        ),
        (lambda model, bare: bare.attach(MHR, ["a"]), "adapters are for 3 tasks, and 1 are named"),
        (lambda model, bare: bare.attach(MHR, ["a", "a", "b"]), "'a' is there twice"),
        (lambda model, bare: bare.save("run"), "a bare T5 is saved already"),
    ],
)
def test_mistakes_are_reported_in_one_line(model, bare, call, message):
    with pytest.raises(poly_jax.UserError, match=message):
        call(model, bare)


def test_an_unknown_vocabulary_is_an_error_that_says_what_to_give(file):
    with pytest.raises(
        poly_jax.UserError, match="the vocabulary is not known; load the model with vocabulary="
    ):
        poly_jax.load(file).predict(["a"])


def test_a_vocabulary_that_does_not_fit_the_embedding_is_refused(file, shared_data):
    vocabulary = shared_data / "t5_vocab" / "spiece.model"
    with pytest.raises(poly_jax.UserError, match="ids 0 to 32099, and the embedding has 259 rows"):
        poly_jax.load(file, vocabulary=vocabulary).predict(["a"])


def test_the_package_lists_its_names_and_refuses_others():
    assert "load" in dir(poly_jax)
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        _ = poly_jax.unknown
