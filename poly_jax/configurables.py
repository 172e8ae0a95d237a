"""The modules that register configurables with gin: they are imported before any gin file is read."""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

MODULES = (
    "poly_jax.adapters.config",
    "poly_jax.adapters.ia3",
    "poly_jax.adapters.lora",
    "poly_jax.data.vocabularies",
    "poly_jax.experiment",
    "poly_jax.experiment",
    "poly_jax.model.config",
    "poly_jax.model.generate",
    "poly_jax.model.loss",
    "poly_jax.routing.fixed",
    "poly_jax.routing.learned",
    "poly_jax.tasks.super_natural_instructions.tasks",
    "poly_jax.training.mesh",
    "poly_jax.training.optimizer",
    "poly_jax.training.train",
)

_START_UP_LOG = re.compile(
    r"I\d{4} |WARNING: All log messages before absl|To enable the following instructions"
)


def import_configurables() -> None:
    """Import every module that registers a configurable, so that gin files can bind it by name."""
    with _without_start_up_logs():
        for module in MODULES:
            importlib.import_module(module)


@contextlib.contextmanager
def _without_start_up_logs() -> Iterator[None]:
    """Hold back what TensorFlow's libraries log while they are loaded, before any log level is in force."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.write("".join(line for line in lines if not _START_UP_LOG.match(line)))
