"""Tests of the silent import of TensorFlow."""

import logging
import os
import subprocess
import sys

import absl.logging
import pytest

from poly_jax.data.quiet import held_stderr


@pytest.mark.slow
def test_a_new_process_imports_and_uses_tensorflow_without_output():
    program = (
        "from poly_jax.data.quiet import seqio, tf\n"
        "import poly_jax.tasks\n"
        "print(sum(tf.data.Dataset.range(2).map(lambda x: x + 1).as_numpy_iterator()))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "3"
    assert run.stderr == ""


def test_the_output_of_a_library_is_held_back(capfd):
    with held_stderr():
        os.write(2, b"I0000 noise\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_the_output_of_a_library_is_shown_if_it_fails(capfd):
    def fail():
        with held_stderr():
            os.write(2, b"reason\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert "reason" in capfd.readouterr().err


def test_log_messages_of_seqio_are_dropped_and_messages_of_the_program_are_kept():
    logger = absl.logging.get_absl_logger()
    for path, kept in (("/site-packages/seqio/utils.py", False), ("/home/someone/train.py", True)):
        record = logging.LogRecord("absl", logging.ERROR, path, 1, "text", (), None)
        assert bool(logger.filter(record)) is kept
