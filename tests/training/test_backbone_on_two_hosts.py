"""Of two processes, each reads of the backbone what its devices hold, and hashes a share of its tensors."""

import dataclasses
import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from poly_jax.model.config import T5Config
from poly_jax.weights import single_file
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import unflatten

PROGRAM = pathlib.Path(__file__).with_name("read_by_two_hosts.py")
CONFIG = T5Config(
    vocab_size=16,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in t5_parameter_shapes(CONFIG).items()}
    path = tmp_path_factory.mktemp("b") / "b.safetensors"
    single_file.save(path, unflatten(arrays), dataclasses.asdict(CONFIG))
    return path


@pytest.fixture(scope="module")
def read_by_two(file):
    def run(*words: str) -> list[dict]:
        with socket.socket() as s:
            s.bind(("localhost", 0))
            coordinator = f"localhost:{s.getsockname()[1]}"
        processes = [
            subprocess.Popen(
                [sys.executable, PROGRAM, coordinator, str(number), file, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        outputs = [process.communicate(timeout=240) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors[-3000:]
        return [json.loads(printed.splitlines()[-1]) for printed, _ in outputs]

    return run


def test_each_host_reads_its_half_and_hashes_about_half_of_the_tensors(read_by_two):
    first, second = read_by_two("loop", "none")
    assert sorted(first["hashed"] + second["hashed"]) == sorted(t5_parameter_shapes(CONFIG))
    for host in (first, second):
        assert 0.48 * host["bytes"] < host["whole"] < 0.52 * host["bytes"]
        # Norms and position biases, which are small, are on every device.
        assert host["bytes"] / 2 <= host["parts"] < 0.6 * host["bytes"]


def test_what_one_host_cannot_read_is_an_error_of_both_that_names_the_host(read_by_two, file):
    first, second = read_by_two("failures", "none")
    missing, unreadable = second["errors"]
    assert missing.startswith(f"{file}-of-host-1 does not exist")
    assert unreadable == "Input/output error"
    assert first["errors"] == [f"host 1 failed: {error}" for error in second["errors"]]


@pytest.mark.parametrize(("layers", "quantization"), [("loop", "none"), ("scan", "int8")])
def test_both_hosts_have_the_right_shards_and_the_hash_of_one_host(read_by_two, file, layers, quantization):
    expected = content_hash(open_backbone(file).tensors)
    for host in read_by_two(layers, quantization):
        assert host["wrong"] == []
        assert host["digest"] == expected
