"""A tiny run and its plan on one CPU device, which the tests of planning share."""

import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.experiment import Data, Experiment
from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding
from poly_jax.planning.abstract_run import AbstractRun, table_of
from poly_jax.planning.plan import Accelerators, Plan, make_plan
from poly_jax.routing.learned import LearnedRouter


@pytest.fixture(scope="session")
def run() -> AbstractRun:
    config = T5Config(
        vocab_size=32,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=24,
        num_encoder_layers=2,
        num_decoder_layers=1,
        scan_layers=True,
    )
    adapters = Adapters(
        LoRA(rank=1), LearnedRouter(), 1, n_skills=2, n_splits=2, sites=("encoder/attention/query",)
    )
    data = Data("none", inputs_length=12, targets_length=10, batch_size=8)
    return AbstractRun(Experiment(config, data, adapters, decoding=Decoding(max_length=4)), steps=1000)


@pytest.fixture(scope="module")
def planned(run) -> Plan:
    return make_plan(run, table_of(5), Accelerators.named("v5e:1x1", simulate=True))
