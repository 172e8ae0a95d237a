"""The choice of the accelerators that JAX looks for."""

import importlib.metadata
import importlib.util
import os
import pathlib

_DEVICES = pathlib.Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"


def leave_out_tpu() -> None:
    """Tell JAX that there are only CPUs, where libtpu is installed and the machine has no TPU.

    Users have libtpu on such a machine for `poly-jax plan`. JAX would load it all the same when it starts,
    and libtpu would warn at length. Nothing is said where JAX has a plugin for another accelerator.
    """
    if importlib.util.find_spec("libtpu") is None or has_accelerator():
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def has_accelerator() -> bool:
    """Return whether this machine has a TPU, or JAX a plugin for another accelerator."""
    return has_tpu() or _plugins()


def has_tpu() -> bool:
    """Return whether this machine has a TPU, which is a PCI device of Google."""
    return any(_text(path) == _GOOGLE for path in _DEVICES.glob("*/vendor"))


def _plugins() -> bool:
    # JAX finds plugins in both ways.
    found = importlib.util.find_spec("jax_plugins") is not None
    return found or bool(importlib.metadata.entry_points(group="jax_plugins"))


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
