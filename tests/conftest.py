"""Fixtures for the whole test suite."""

import gc
import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save_file

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Programs of tests take longer to compile than to run: this halves the time of the whole suite. Programs that
# tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# As in the program: Python's default looks for cycles so often that it takes a tenth of the suite's time.
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    root = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("POLY_JAX_TEST_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set POLY_JAX_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def shared_cases(shared_data) -> pathlib.Path:
    """The folder of inputs that once went wrong, beside the real data; tests that need it skip without it."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Programs that several tests compile are compiled once, in whichever process needs them first."""
    import jax

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    # A developer's own cache, where there is one, outlives the run. Programs that tests start read these too.
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    shortest = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(shortest))


@pytest.fixture(scope="session", autouse=True)
def _embedded_benchmark() -> None:
    """Import the embedded benchmark's tasks before the first test.

    They are registered when their module is first imported. A test that undoes its registrations, and is the
    first to import them, would take them away from all later tests of the process.
    """
    import poly_jax.tasks.skillbench.tasks  # noqa: F401


@pytest.fixture
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def on_eight_devices() -> Callable[..., Any]:
    """A function that runs a file as a program with eight CPU devices, and returns the JSON of its last line.

    The file's own arguments follow it; keywords are environment variables.
    """

    def run(file: str, *arguments: str, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, file, *arguments],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu", **environment},
            capture_output=True,
            text=True,
            # All meshes of all cases take about an hour.
            timeout=7200,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def page_block() -> Callable[[str, str], str]:
    """A function that returns the only block of a language on a page of docs/."""
    docs = pathlib.Path(__file__).resolve().parents[1] / "docs"

    def block(page: str, language: str) -> str:
        text = (docs / f"{page}.md").read_text()
        (found,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        return found

    return block


@pytest.fixture(scope="session")
def train_shortly(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that trains a recipe of the embedded benchmark for two steps, and returns its folder."""
    from poly_jax.configuration import Configuration
    from poly_jax.training.train import train

    def run(recipe: str, *bindings: str) -> str:
        few = (
            "Adapters.sites = ('.*/attention/query', '.*/mlp/wo')",
            "train.steps = 2",
            "Data.batch_size = 8",
        )
        loaded = Configuration((f"recipes/skillbench/{recipe}.gin",), (*few, *bindings)).load()
        folder = str(tmp_path_factory.mktemp("short_runs") / recipe)
        train(**loaded.arguments("train", output_dir=folder))
        return folder

    return run


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Bindings that give recipes of the embedded benchmark the first layer of each stack of its T5 only.

    Most of the time of a program on this T5 goes into compiling layers.
    """
    from poly_jax.tasks.skillbench.backbone import backbone
    from poly_jax.weights import single_file

    tensors, metadata = single_file.open_file(backbone())
    depth = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    file = tmp_path_factory.mktemp("one_layer") / "backbone.safetensors"
    first = {name: tensor for name, tensor in tensors.items() if "layers_1" not in name.split("/")}
    single_file.write(file, first, metadata | depth)
    layers = (f"T5Config.{name} = {count}" for name, count in depth.items())
    return (f"Experiment.backbone = {str(file)!r}", *layers)


@pytest.fixture(scope="session")
def short_runs(one_layer: tuple[str, ...], train_shortly: Callable[..., str]) -> dict[str, str]:
    """Folders of two very short runs of the embedded benchmark: one with shared skills, one with private."""
    return {name: train_shortly(name, *one_layer) for name in ("mhr", "private")}


# Small checkpoints in other systems' formats, written by hand from the published layouts.


@pytest.fixture(scope="session")
def sentencepiece_model() -> bytes:
    """A SentencePiece model of 60 pieces with T5's special ids."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["if you return y we add x to the rest", "the rest of it is here"] * 20),
        model_writer=out,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        minloglevel=2,
    )
    return out.getvalue()


@pytest.fixture
def hugging_face_config() -> dict:
    return {
        "model_type": "t5",
        "vocab_size": 12,
        "d_model": 4,
        "num_heads": 2,
        "d_kv": 3,
        "d_ff": 5,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


@pytest.fixture
def hugging_face_tensors() -> Callable[[dict], dict[str, np.ndarray]]:
    """Every tensor of transformers' T5ForConditionalGeneration for a config, in torch's layout [out, in]."""

    def attention(config, name):
        d, inner = config["d_model"], config["num_heads"] * config["d_kv"]
        return {f"{name}.{x}.weight": (inner, d) for x in "qkv"} | {f"{name}.o.weight": (d, inner)}

    def stack(config, name, depth, attentions):
        d, ff = config["d_model"], config["d_ff"]
        inputs = ["wi_0", "wi_1"] if config["feed_forward_proj"].startswith("gated") else ["wi"]
        bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes = {f"{name}.final_layer_norm.weight": (d,), bias: (32, config["num_heads"])}
        for i in range(depth):
            for j, kind in enumerate(attentions):
                shapes |= attention(config, f"{name}.block.{i}.layer.{j}.{kind}")
            dense = f"{name}.block.{i}.layer.{len(attentions)}.DenseReluDense"
            shapes |= {f"{dense}.{x}.weight": (ff, d) for x in inputs} | {f"{dense}.wo.weight": (d, ff)}
            norms = range(len(attentions) + 1)
            shapes |= {f"{name}.block.{i}.layer.{j}.layer_norm.weight": (d,) for j in norms}
        return shapes

    def tensors(config):
        vocabulary = (config["vocab_size"], config["d_model"])
        shapes = {
            "shared.weight": vocabulary,
            "lm_head.weight": vocabulary,
            **stack(config, "encoder", config["num_layers"], ["SelfAttention"]),
            **stack(config, "decoder", config["num_decoder_layers"], ["SelfAttention", "EncDecAttention"]),
        }
        rng = np.random.default_rng(0)
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    return tensors


@pytest.fixture
def write_hugging_face(tmp_path) -> Callable[..., pathlib.Path]:
    def write(config: dict, tensors: dict[str, np.ndarray], n_shards: int = 1) -> pathlib.Path:
        folder = tmp_path / "hugging_face"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        if n_shards == 1:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            return folder
        weight_map = {}
        for i in range(n_shards):
            file = f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors"
            part = dict(sorted(tensors.items())[i::n_shards])
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return write


@pytest.fixture
def legacy_t5x(tmp_path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """A T5X checkpoint in the legacy format, and its parameters.

    It has an array of four chunks, a bfloat16 one, a small one inside the msgpack file, references written on
    three file systems, and optimizer state whose files are not there.
    """
    rng = np.random.default_rng(0)
    arrays = {
        "token_embedder/embedding": rng.normal(size=(4, 6)).astype(np.float32),
        "encoder/encoder_norm/scale": rng.normal(size=6).astype(ml_dtypes.bfloat16),
        "decoder/logits_dense/kernel": rng.normal(size=(6, 4)).astype(np.float32),
    }
    inline = rng.normal(size=6).astype(np.float32)
    chunks = [(2, 3), (6,), (6, 4)]
    drivers = ["file", "gfile", "gcs"]
    folder = tmp_path / "checkpoint_10"
    folder.mkdir()
    target: dict = {"decoder": {"decoder_norm": {"scale": _msgpack_array(inline)}}}
    for (name, array), chunk, driver in zip(arrays.items(), chunks, drivers, strict=True):
        *branches, leaf = name.split("/")
        node = target
        for branch in branches:
            node = node.setdefault(branch, {})
        place = f"target.{name.replace('/', '.')}"
        node[leaf] = _reference(place, array, chunk, driver)
        _write_zarr(folder / place, array, chunk)
    state = {"param_states": {"x": _reference("state.x", inline, (6,), "file")}, "step": 10}
    content = {"version": 3, "optimizer": {"target": target, "state": state}}
    (folder / "checkpoint").write_bytes(msgpack.packb(content))
    return folder, {**arrays, "decoder/decoder_norm/scale": inline}


def _msgpack_array(array: np.ndarray) -> msgpack.ExtType:
    """flax.serialization's encoding of an array: extension type 1 around shape, dtype name and bytes."""
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def _reference(name: str, array: np.ndarray, chunks: tuple[int, ...], driver: str) -> dict:
    """Return T5X's placeholder for an array in the msgpack file."""
    kvstore = {"driver": driver, "path": f"{name}/"} | (
        {"bucket": "t5x-dummy-bucket"} if driver == "gcs" else {}
    )
    compressor = {"id": "gzip", "level": 1}
    metadata = {"shape": list(array.shape), "chunks": list(chunks), "compressor": compressor}
    return {"driver": "zarr", "dtype": array.dtype.name, "kvstore": kvstore, "metadata": metadata}


def _write_zarr(folder: pathlib.Path, array: np.ndarray, chunks: tuple[int, ...]) -> None:
    """A gzip-compressed zarr v2 array; `chunks` divides the shape."""
    folder.mkdir()
    metadata = {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": list(chunks),
        "dtype": "bfloat16" if array.dtype == ml_dtypes.bfloat16 else array.dtype.str,
        "compressor": {"id": "gzip", "level": 1},
        "fill_value": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }
    (folder / ".zarray").write_text(json.dumps(metadata))
    for index in np.ndindex(*(n // c for n, c in zip(array.shape, chunks, strict=True))):
        block = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))
        (folder / ".".join(map(str, index))).write_bytes(gzip.compress(array[block].tobytes()))


@pytest.fixture(scope="session")
def zeros() -> Callable[..., pathlib.Path]:
    """A function that makes a Hugging Face folder of zeros for a `T5Config`, using almost no disk space."""
    from poly_jax.interop.hugging_face.writer import hugging_face_config
    from poly_jax.weights.hugging_face import tensor_name, turned_shape
    from poly_jax.weights.t5_shapes import t5_parameter_shapes

    def make(folder, config):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(hugging_face_config(config, np.dtype(np.float32))))
        header, begin = {}, 0
        for name, shape in t5_parameter_shapes(config).items():
            shape = turned_shape(name, shape)
            end = begin + 4 * int(np.prod(shape))
            header[tensor_name(name)] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
            begin = end
        text = json.dumps(header).encode()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + begin)
        return folder

    return make
