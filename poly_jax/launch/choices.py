"""The choices of `poly-jax launch`, in a separate module without its tools, for a fast `--help`."""

from typing import Literal, get_args

Place = Literal["cluster_toolkit", "jobset", "xpk", "tpu_vm", "skypilot", "slurm", "local"]
"""The place where a job runs: the name of a target of `poly_jax.launch.targets`, or this machine."""

Action = Literal["submit", "status", "logs", "stop"]

PLACES: tuple[Place, ...] = get_args(Place)
ACTIONS: tuple[Action, ...] = get_args(Action)
