"""TensorFlow and seqio, imported without their start-up noise and kept off the accelerators.

Import `tf` and `seqio` from here, never directly: JAX must find the accelerators free, and a user should see
this project's messages only.
"""

import contextlib
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import absl.logging

from poly_jax.data.deferred_keras import deferred_keras

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

_CHATTY = frozenset({"orbax", "seqio", "tensorflow_datasets", "tensorflow"})


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Hold back all output to file descriptor 2, and write it only if the block fails.

    The C++ libraries log before their log level takes effect, so only the file descriptor can stop them.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def _is_from_own_or_user_code(record: logging.LogRecord) -> bool:
    return _CHATTY.isdisjoint(pathlib.PurePath(record.pathname).parts)


with held_stderr(), deferred_keras():
    import seqio
    import tensorflow as tf

    # This fails where the process has already used TensorFlow; the user then decided about its devices.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
        tf.config.set_visible_devices([], "TPU")

# seqio logs through absl, whose one logger also carries the program's own messages.
absl.logging.get_absl_logger().addFilter(_is_from_own_or_user_code)
logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["held_stderr", "seqio", "tf"]
