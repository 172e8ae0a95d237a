"""Compares the forms in which one adapted projection can mix LoRA skills by task.

    python benchmarks/mixing_forms.py [--width=512] [--skills=8]

The forward and backward pass of one projection, in float32, with the gradients of inputs, skills and weights.
Factors, or outputs, are mixed first into a copy for each example of a row, or the skills stand side by side
and each position weighs them. "Alone" is the frozen projection.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import arguments, in_turn, report

from poly_jax.adapters.lora import LoRA
from poly_jax.cli.allocation import reuse_memory
from poly_jax.model.projection import at_positions


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch of rows that hold several examples each, and the size of the skills."""

    length: int
    examples: int
    splits: int
    rank: int
    rows: int = 8


CASES = (
    Case(128, 1, 1, 16),
    Case(128, 1, 8, 16),
    Case(128, 4, 1, 16),
    Case(1024, 16, 1, 1),
    Case(1024, 16, 8, 1),
    Case(1024, 4, 1, 16),
    Case(1024, 16, 8, 16),
)


def factors_by_position(skill: LoRA, skills: Any, weights: Any, x: Any, y: Any) -> Any:
    """Mixed factors without a mixed copy: z = sum_k w[q,k] x_q A[q,k], then sum_k w[q,k] (z B[q,k]).

    The matrices of all splits stand on the diagonal of one matrix, so that both products are dense.
    """
    splits, n_skills, _, rank = skills["lora_a"].shape
    each = jnp.eye(splits)
    a = jnp.einsum("qkir,qp->qipkr", skills["lora_a"], each).reshape(x.shape[-1], -1)
    b = jnp.einsum("qkro,qp->qkrpo", skills["lora_b"], each).reshape(-1, y.shape[-1])
    weights = weights.reshape(-1, splits, n_skills)
    hidden = (x.reshape(-1, x.shape[-1]) @ a).reshape(-1, splits, n_skills, rank)
    z = jnp.einsum("nqkr,nqk->nr", hidden, weights)
    weighted = (weights[..., None] * z[:, None, None]).reshape(len(z), -1)
    return y + (skill.alpha / skill.rank) * (weighted @ b).reshape(y.shape)


def programs(case: Case, width: int, n_skills: int) -> dict[str, Callable[[], float]]:
    """The pass of every form, all on the same arrays."""
    rng = np.random.default_rng(0)
    shapes = LoRA(rank=case.rank).parameters(case.splits, n_skills, width, width)
    skills = {name: rng.normal(size=spec.shape).astype(np.float32) for name, spec in shapes.items()}
    x = rng.normal(size=(case.rows, case.length, width)).astype(np.float32)
    kernel = (rng.normal(size=(width, width)) / np.sqrt(width)).astype(np.float32)
    table = rng.dirichlet(np.ones(n_skills), (case.rows, case.examples, case.splits)).astype(np.float32)
    examples = np.broadcast_to(np.arange(case.length) * case.examples // case.length, x.shape[:2])
    segments = examples.astype(np.int32) + 1 if case.examples > 1 else None

    def mixed_first(skill: LoRA, skills: Any, table: Any, x: Any) -> Any:
        weights = table if case.examples > 1 else table[:, 0]
        return skill.apply(skill.mix(skills, weights), x, x @ kernel, segments=segments)

    def weights_at(table: Any) -> Any:
        return at_positions(table if case.examples > 1 else table[:, 0], case.length, segments)

    def outputs_by_position(skill: LoRA, skills: Any, table: Any, x: Any) -> Any:
        stacked = skill.side_by_side(skills)
        return skill.apply_by_token(stacked, weights_at(table), x, x @ kernel)

    factors, outputs = (LoRA(rank=case.rank, merge_after=after) for after in (False, True))
    forms = {
        "alone": lambda skills, table, x: x @ kernel,
        "factors, mixed first": lambda *given: mixed_first(factors, *given),
        "factors, by position": lambda skills, table, x: factors_by_position(
            factors, skills, weights_at(table), x, x @ kernel
        ),
        "outputs, mixed first": lambda *given: mixed_first(outputs, *given),
        "outputs, by position": lambda *given: outputs_by_position(outputs, *given),
    }
    return {name: _pass(form, skills, table, x) for name, form in forms.items()}


def _pass(form: Callable[..., Any], *given: Any) -> Callable[[], float]:
    def total(*given: Any) -> Any:
        return jnp.sum(form(*given) ** 2)

    program = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))

    def run() -> float:
        jax.block_until_ready(program(*given))
        return 1.0

    return run


def main() -> None:
    """Print the table."""
    reuse_memory()  # As the program does.
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--width", type=int, default=512, help="inputs and outputs of the projection")
    parser.add_argument("--skills", type=int, default=8)
    args = parser.parse_args()
    found = {case: in_turn(programs(case, args.width, args.skills), args.rounds)[1] for case in CASES}
    names = list(next(iter(found.values())))
    report(
        f"Forms of mixing: ms of a projection from {args.width} to {args.width}, {args.skills} skills,"
        f" {CASES[0].rows} rows, {args.rounds} rounds",
        ["tokens of a row", "examples of a row", "splits", "rank", *names],
        [
            [
                *(str(size) for size in (case.length, case.examples, case.splits, case.rank)),
                *(f"{1e3 * seconds[name]:.0f}" for name in names),
            ]
            for case, seconds in found.items()
        ],
        [dataclasses.asdict(case) | seconds for case, seconds in found.items()],
        args.json,
    )


if __name__ == "__main__":
    main()
