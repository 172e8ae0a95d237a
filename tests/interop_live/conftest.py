"""Tests against transformers and PEFT, which `make test-interop` installs; without them all skip."""

import importlib.util
import pathlib

import numpy as np
import pytest

NEEDED = ("torch", "transformers", "peft")
VOCABULARY = 128
TEXTS = np.array([[5, 9, 77, 3, 1, 0, 0], [100, 4, 8, 15, 16, 23, 1], [42, 1, 0, 0, 0, 0, 0]])
TARGETS = np.array([[0, 7, 8, 9], [0, 99, 98, 1], [0, 3, 3, 3]])


def pytest_collection_modifyitems(items):
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if missing:
                reason = f"{', '.join(missing)} not installed; make test-interop installs and runs these"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _own_folder(own_folder):
    """Run every test in an empty folder, because all of them write files."""


@pytest.fixture
def t5():
    """A function that makes transformers' T5 with random weights, for a form of the T5 family."""
    import torch
    from transformers import (
        MT5Config,
        MT5ForConditionalGeneration,
        T5Config,
        T5ForConditionalGeneration,
        UMT5Config,
        UMT5ForConditionalGeneration,
    )

    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }

    def make(form, seed=0):
        torch.manual_seed(seed)
        if form == "v1.0":
            model = T5ForConditionalGeneration(T5Config(**sizes, feed_forward_proj="relu"))
        elif form == "v1.1":
            config = T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
            model = T5ForConditionalGeneration(config)
        elif form == "mt5":
            model = MT5ForConditionalGeneration(MT5Config(**sizes))
        else:
            model = UMT5ForConditionalGeneration(UMT5Config(**sizes, tie_word_embeddings=False))
        if form != "v1.0":
            # A separate output head: versions of transformers differ in whether they make one.
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 32) / 32**0.5)
        for parameter in model.parameters():
            # Move the values away from the initialisers' zeros and ones.
            parameter.data += 0.05 * torch.randn_like(parameter)
        return model.eval()

    return make


@pytest.fixture
def their_logits():
    """Logits [text, position, vocabulary] of a model of transformers or PEFT."""
    import torch

    def logits(model, **more):
        inputs = torch.tensor(TEXTS)
        with torch.no_grad():
            outputs = model(
                input_ids=inputs,
                attention_mask=(inputs > 0).long(),
                decoder_input_ids=torch.tensor(TARGETS),
                **more,
            )
        return outputs.logits.numpy()

    return logits


@pytest.fixture
def our_logits():
    """Logits of a loaded `poly_jax.Model`, with one task name for every text or one for all."""
    import jax

    def logits(model, tasks=None):
        table = model.restored.table
        names = [tasks] * len(TEXTS) if isinstance(tasks, str) else tasks
        ids = np.array([table.id(name) for name in names] if names else [0] * len(TEXTS), np.int32)
        apply = jax.jit(model.restored.model.apply)
        return np.asarray(apply({"params": model.restored.parameters}, TEXTS, TARGETS, ids))

    return logits
