"""The places where a job can run: one module each, which renders a job for that place's own tools."""

from poly_jax.launch.targets.cluster_toolkit import ClusterToolkit
from poly_jax.launch.targets.jobset import JobSet
from poly_jax.launch.targets.skypilot import SkyPilot
from poly_jax.launch.targets.slurm import Slurm
from poly_jax.launch.targets.target import Target
from poly_jax.launch.targets.tpu_vm import TPUVM
from poly_jax.launch.targets.xpk import Xpk

TARGETS: dict[str, Target] = {
    target.name: target for target in (ClusterToolkit(), JobSet(), Xpk(), TPUVM(), SkyPilot(), Slurm())
}
