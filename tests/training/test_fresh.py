"""Fresh adapters are what Flax draws, on one device and on several; layers share the drawing programs."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import Partitioning
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, split


def _model(layers=1, **changes):
    config = T5Config(
        vocab_size=40,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
    )
    adapters = Adapters(LoRA(rank=2), LearnedRouter(), n_tasks=3, n_splits=2, n_skills=3)
    return Transformer(dataclasses.replace(config, **changes), adapters)


@pytest.mark.parametrize("scanned", [False, True])
def test_they_are_what_flax_draws_in_one_program(scanned):
    model = _model(layers=2, scan_layers=scanned)
    drawn = flatten(fresh_parameters(model, 3, Partitioning().mesh()))
    whole = jax.jit(lambda key: init_parameters(model, key)[0])(jax.random.key(3))
    expected = flatten(split(whole, is_adapter_parameter)[0])
    assert drawn.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(drawn[name], array, err_msg=name)


def test_a_part_is_drawn_as_it_is_in_the_whole():
    model, mesh = _model(), Partitioning().mesh()
    whole = flatten(fresh_parameters(model, 0, mesh, lambda name: True))
    part = flatten(fresh_parameters(model, 0, mesh, lambda name: name.endswith("lora_a")))
    assert part
    assert all(name.endswith("lora_a") for name in part)
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)


@pytest.fixture(name="compiled")
def _compiled():
    """The names of the programs that XLA compiles, none of them in advance."""
    names = []

    def listen(name, seconds, **details):
        if name.endswith("backend_compile_duration"):
            names.append(details["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.clear_caches()
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("backbone", [False, True])
def test_the_outputs_of_a_model_that_is_drawn_are_not_computed(compiled, backbone):
    mesh = Partitioning().mesh()
    if backbone:
        load_backbone(RANDOM, Transformer(_model().config), mesh)
    else:
        fresh_parameters(_model(), 0, mesh)
    drawing = {"_normal", "_uniform", "_truncated_normal"}
    names = {name.removeprefix("jit(").removesuffix(")") for name in compiled}
    assert names & drawing
    assert not names & {"dot_general", "tanh", "exp", "rsqrt", "gather"}


def test_further_layers_compile_nothing(compiled):
    mesh = Partitioning().mesh()
    fresh_parameters(_model(layers=1), 0, mesh)
    assert compiled
    compiled.clear()
    fresh_parameters(_model(layers=3), 0, mesh)
    assert not compiled


def test_eight_devices_draw_the_same_bits(on_eight_devices):
    assert on_eight_devices(__file__, "2") == _bits(fsdp=1)


def _bits(fsdp):
    drawn = flatten(fresh_parameters(_model(), 0, Partitioning(fsdp=fsdp).mesh()))
    return {name: np.asarray(array).tobytes().hex() for name, array in drawn.items()}


if __name__ == "__main__":
    print(json.dumps(_bits(fsdp=int(sys.argv[1]))))
