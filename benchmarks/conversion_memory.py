"""Measures the memory that `poly-jax import` and `export` of a backbone need.

    python benchmarks/conversion_memory.py [--model=t5_1_1_xl]

The model is a file of gin/models. Its float32 parameters are zeros, in shards of a Hugging Face folder that
take no space on the disk. They are imported and exported for T5X; the result is imported again and exported
for transformers. Each program runs in its own process, whose peak memory Linux reports. The disk holds the
model once.
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from poly_jax import configuration
from poly_jax.interop.hugging_face.writer import hugging_face_config
from poly_jax.model.config import T5Config
from poly_jax.weights.hugging_face import tensor_name, turned_shape
from poly_jax.weights.safetensors_writer import SHARD_BYTES
from poly_jax.weights.t5_shapes import t5_parameter_shapes

FLOAT = np.dtype(np.float32)
SECONDS_BETWEEN_LOOKS = 0.02


def make_zeros(folder: pathlib.Path, config: T5Config) -> int:
    """Make a Hugging Face folder of zeros, in shards without content; return their number of bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hugging_face_config(config, FLOAT)))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    sizes = [0]
    for name, shape in t5_parameter_shapes(config).items():
        size = math.prod(shape) * FLOAT.itemsize
        if sizes[-1] + size > SHARD_BYTES:
            shards.append({})
            sizes.append(0)
        shards[-1][tensor_name(name)] = turned_shape(name, shape)
        sizes[-1] += size
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        make_shard(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return sum(sizes)


def make_shard(file: pathlib.Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Make a safetensors file that consists of a header and a hole."""
    header, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * FLOAT.itemsize
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    with file.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + begin)


def measure(what: str, nbytes: int, *arguments: str) -> None:
    """Run a `poly-jax` program; print its time and its peak memory, with and without pages of files."""
    begin = time.perf_counter()
    most = {"VmHWM": 0, "RssAnon": 0}
    command = [sys.executable, "-c", "import sys, poly_jax.cli; sys.exit(poly_jax.cli.main())", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        status = pathlib.Path(f"/proc/{program.pid}/status")
        while program.poll() is None:
            for line in status.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in most:
                    most[name] = max(most[name], int(value.split()[0]) * 1024)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if program.returncode:
        sys.exit(f"poly-jax {' '.join(arguments)} failed")
    peak, anonymous = most["VmHWM"], most["RssAnon"]
    print(
        f"{what}: peak {peak / 1e9:.2f} GB ({anonymous / 1e9:.2f} GB without pages of files), "
        f"{peak / nbytes:.2f} x its bytes, {time.perf_counter() - begin:.0f} s",
        flush=True,
    )


def main() -> None:
    """Measure the four programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="t5_1_1_xl", help="a file of gin/models, without its ending")
    model = parser.parse_args().model
    config = configuration.load([f"models/{model}.gin"]).make("T5Config")
    with tempfile.TemporaryDirectory() as name:
        zeros, t5x, output = (f"{name}/{part}" for part in ("zeros", "t5x", "output"))
        nbytes = make_zeros(pathlib.Path(zeros), config)
        print(f"{model}: {nbytes / 1e9:.2f} GB")
        measure("Hugging Face in", nbytes, "import", f"--from={zeros}", f"--output={output}")
        measure("T5X out", nbytes, "export", f"--backbone={output}", "--format=t5x", f"--output={t5x}")
        shutil.rmtree(output)
        measure("T5X in", nbytes, "import", f"--from={t5x}", f"--output={output}")
        shutil.rmtree(output)
        form = "--format=hugging_face"
        measure("Hugging Face out", nbytes, "export", f"--backbone={t5x}", form, f"--output={output}")


if __name__ == "__main__":
    main()
