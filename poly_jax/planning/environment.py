"""The settings that make JAX and libtpu compile for other machines, to be set before they are imported."""

import os

_VARIABLES = {
    # The machine needs no TPU, and JAX does not look for one.
    "JAX_PLATFORMS": "cpu",
    # Otherwise only one process of the machine may load libtpu.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Otherwise libtpu asks the cloud's metadata server which TPU this machine has, and warns at length.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # A program for another machine cannot be kept, and JAX would warn about it.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


def prepare_environment(simulated: int = 0) -> None:
    """Set the environment variables of this process for compiling ahead of time.

    Args:
      simulated: number of CPU devices that stand for TPUs; 0 to compile for TPUs.
    """
    os.environ.update(_VARIABLES)
    if simulated:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(simulated)
