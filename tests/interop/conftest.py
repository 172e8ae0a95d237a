"""Small checkpoints of other systems, written here by hand from their published layouts."""

import gzip
import json
import pathlib
from collections.abc import Callable

import ml_dtypes
import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file


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
    """Every tensor of transformers' T5ForConditionalGeneration for a config, torch's way round."""

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
    """A T5X checkpoint of the legacy format and the parameters in it.

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
    """What T5X leaves in the msgpack file in place of an array."""
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


# Names of the tasks 0 to 4 of PEFT's fixture, on purpose not in order.
POLY_TASKS = ["echo", "delta", "alpha", "charlie", "bravo"]


@pytest.fixture(scope="session")
def poly_fixture(shared_data) -> pathlib.Path:
    """PEFT's Poly with 4 skills, 4 splits and rank 4, its base model and what PEFT computes from them."""
    return shared_data / "peft" / "poly_k4_s4_r4"


@pytest.fixture(scope="session")
def poly_run(poly_fixture, tmp_path_factory) -> pathlib.Path:
    """The fixture imported as a run, with names for its tasks."""
    import gin

    from poly_jax import cli

    root = tmp_path_factory.mktemp("poly")
    (root / "names.json").write_text(json.dumps(POLY_TASKS))
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}"]
    arguments += [f"--output={root / 'run'}", f"--tasks={root / 'names.json'}"]
    assert cli.main(["import", *arguments]) == 0
    gin.clear_config()
    return root / "run"


@pytest.fixture(scope="session")
def poly_task_ids(poly_fixture) -> np.ndarray:
    """The fixture's task ids as ids of the run's table, in which names are in order."""
    by_number = np.argsort(np.argsort(POLY_TASKS))
    return by_number[np.load(poly_fixture / "fixture.npz")["task_ids"]].astype(np.int32)


@pytest.fixture(scope="session")
def zeros() -> Callable[..., pathlib.Path]:
    """Makes a Hugging Face folder of zeros for a `T5Config`; they take no room on the disk."""
    from poly_jax.interop.hugging_face import tensor_name, turned_shape
    from poly_jax.interop.hugging_face_writer import hugging_face_config
    from poly_jax.interop.t5_shapes import parameter_shapes

    def make(folder, config):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(hugging_face_config(config, np.dtype(np.float32))))
        header, begin = {}, 0
        for name, shape in parameter_shapes(config).items():
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
