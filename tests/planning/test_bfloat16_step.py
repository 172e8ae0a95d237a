"""What a training step in bfloat16 computes in float32: read from the traced step, and from one for a TPU.

Run as a program, this compiles the step with libtpu, and prints the shapes of its arrays by dtype as JSON.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.experiment import Data, Experiment
from poly_jax.model import frozen_product
from poly_jax.model.config import T5Config
from poly_jax.planning.abstract_run import AbstractRun, table_of, train_program
from poly_jax.planning.dot_flops import products
from poly_jax.planning.environment import prepare_environment
from poly_jax.planning.hlo import read_hlo
from poly_jax.planning.plan import Accelerators
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.weights.tree import flatten

TASKS = 5
# No activation has the two sides of a kernel, of the embeddings or of the output head.
EMBED, HEADS, KV, MLP, VOCAB, INPUTS, TARGETS = 256, 6, 24, 640, 384, 20, 12
_PAIRS = {(EMBED, HEADS * KV), (EMBED, MLP), (EMBED, VOCAB)}
KERNELS = _PAIRS | {pair[::-1] for pair in _PAIRS}


@dataclasses.dataclass(frozen=True)
class Case:
    """Adapters, how the run differs from the plainest one, and what else multiplies float32 numbers."""

    adapters: Adapters
    packing: str = "none"
    microbatches: int = 1
    remat: str = "none"
    wide: tuple[str, ...] = ()


_MHR = Adapters(LoRA(rank=2, dropout=0.1), LearnedRouter(), TASKS, n_skills=4, n_splits=4)
CASES = {
    "MHR": Case(_MHR),
    "packed rows": Case(_MHR, packing="best-fit"),
    "remat and microbatches": Case(_MHR, remat="full", microbatches=2),
    "outputs are mixed": Case(dataclasses.replace(_MHR, skill=LoRA(rank=2, merge_after=True))),
    "vectors": Case(Adapters(IA3(), LearnedRouter(), TASKS, n_skills=4)),
    "matrices of tasks": Case(Adapters(MTLLoRA(rank=2), LearnedRouter(), TASKS, n_skills=4)),
    # The vectors of each position are mixed at the site, not above it.
    "vectors of tokens": Case(Adapters(IA3(), TokenRouter(), TASKS, n_skills=4), wide=("query", "wi", "wo")),
    # The mean of the positions that the router reads.
    "pooled": Case(Adapters(LoRA(rank=2), SMEARRouter(), TASKS, n_skills=4), wide=("bls,bld->bsd",)),
}


def run_of(case: Case, dtype: str = "bfloat16", scan_layers: bool = True, layers: int = 2) -> AbstractRun:
    config = T5Config(
        vocab_size=VOCAB,
        emb_dim=EMBED,
        num_heads=HEADS,
        head_dim=KV,
        mlp_dim=MLP,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        mlp_activations=("relu",),
        scan_layers=scan_layers,
        remat=case.remat,
        dtype=dtype,
    )
    adapters = dataclasses.replace(case.adapters, sites=(".*/attention/query", ".*/mlp/.*"))
    data = Data("none", inputs_length=INPUTS, targets_length=TARGETS, batch_size=8, packing=case.packing)
    return AbstractRun(Experiment(config, data, adapters), steps=10, microbatches=case.microbatches)


def traced_step(run: AbstractRun, devices=None):
    """The traced step, and the dtypes of what is frozen."""
    mesh = run.partitioning.mesh(devices or jax.devices()[:1])
    traced, arguments = train_program(run, table_of(TASKS), mesh)
    return traced, {leaf.dtype.name for leaf in flatten(arguments.frozen).values()}


def float32_shapes(program) -> set[tuple[int, ...]]:
    """The shapes of all float32 arrays that a traced program reads or makes."""
    body = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    variables = [*body.invars, *(variable for equation in body.eqns for variable in equation.outvars)]
    found = {variable.aval.shape for variable in variables if str(variable.aval.dtype) == "float32"}
    for equation in body.eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr | Jaxpr):
                    found |= float32_shapes(inner)
    return found


def float32_kernels(program) -> set[tuple[int, ...]]:
    """The same for arrays that are as large as a kernel, of one layer or of all, in either orientation."""
    return {shape for shape in float32_shapes(program) if shape[-2:] in KERNELS}


@pytest.fixture(scope="module", params=CASES)
def step(request):
    return CASES[request.param], traced_step(run_of(CASES[request.param]))


def test_no_float32_copy_of_a_frozen_kernel_is_made(step):
    _, (traced, dtypes) = step
    assert dtypes == {"bfloat16"}
    assert float32_kernels(traced.jaxpr) == set()


def test_only_routers_and_mixing_multiply_float32_numbers(step):
    case, (traced, _) = step
    sources = {product.source for product in products(traced.jaxpr) if "float32" in product.dtypes}
    known = ("skills", "router", *case.wide)
    assert [source for source in sources if not any(name in source for name in known)] == []


def test_a_step_in_float32_has_every_kernel_in_float32():
    traced, dtypes = traced_step(run_of(CASES["MHR"], "float32"))
    assert dtypes == {"float32"}
    assert {shape[-2:] for shape in float32_kernels(traced.jaxpr)} == KERNELS


def test_a_product_that_makes_a_float32_copy_is_noticed(monkeypatch):
    def widened(x, copies, kernel):
        return (x.astype(jnp.float32) @ kernel.astype(jnp.float32)).astype(x.dtype)

    monkeypatch.setattr(frozen_product, "_product", widened)
    traced, dtypes = traced_step(run_of(CASES["MHR"]))
    assert dtypes == {"bfloat16"}
    assert {(EMBED, MLP), (MLP, EMBED)} <= float32_kernels(traced.jaxpr)


def main() -> None:
    prepare_environment()
    devices = Accelerators.named("v5e:1x1").describe().devices
    plain = Case(Adapters(LoRA(rank=1), LearnedRouter(), TASKS))
    traced, _ = traced_step(run_of(plain, scan_layers=False, layers=1), devices)
    module = read_hlo(traced.lower().compile().as_text())
    found: dict[str, set[tuple[int, ...]]] = {"bf16": set(), "f32": set()}
    for name, computation in module.computations.items():
        # What a fusion converts on the way to its result is never an array in memory.
        if name.startswith("fused_computation"):
            continue
        for shape in (shape for instruction in computation.values() for shape in instruction.shapes):
            found.setdefault(shape.dtype, set()).add(shape.sides)
    print(json.dumps({dtype: sorted(sides) for dtype, sides in found.items()}))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra `plan`)"
)
def test_the_compiler_for_tpus_makes_no_float32_copy_of_a_frozen_kernel_either():
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    kept, copied = ({tuple(sides[-2:]) for sides in found[dtype]} & KERNELS for dtype in ("bf16", "f32"))
    assert {(EMBED, HEADS * KV), (EMBED, MLP), (MLP, EMBED)} <= kept
    assert copied == set()


if __name__ == "__main__":
    main()
