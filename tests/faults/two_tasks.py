"""The tasks of the runs in the fault matrix; `programs.prepare` copies this file beside their recipe.

A mixture has two tasks, because reading a mixture takes time for each task. Variables of the environment make
a program slow, so that a signal meets it in the middle of something:

SLOW: seconds that each training step takes longer.
SLOW_BATCHES: seconds that each batch of predictions takes longer. The program says "predicting" before each.
SLOW_AFTER: number of batches of predictions that are not slow; 0 by default.
SLOW_SAVING: seconds that a checkpoint is complete, but not yet in place. The program says "saving" then.
SLOW_EXPORT: seconds that each tensor of an export takes longer. The program says "exporting" after each.
NAN_AT: the number of the step whose loss is not finite.
UNREADABLE: the number of the step whose checkpoint the second of two hosts cannot read.
"""

import itertools
import os
import time

import jax
import numpy as np
import seqio
from orbax.checkpoint._src.path import atomicity

from poly_jax.errors import UserError
from poly_jax.evaluation.predict import Predictor
from poly_jax.reporting import byte_progress
from poly_jax.tasks.skillbench import compositions, tasks
from poly_jax.training import checkpoints, loop

names = [tasks.registered_name(task.name) for task in compositions.benchmark().train[:2]]
if "two_tasks" not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add("two_tasks", names, default_rate=1.0)


def _pause(variable, said=""):
    if said:
        print(said, flush=True)
    time.sleep(float(os.environ[variable]))


if "SLOW" in os.environ:
    _taken = loop.check_task_ids

    def _slowly(*arguments):
        _pause("SLOW")
        return _taken(*arguments)

    loop.check_task_ids = _slowly
if "SLOW_BATCHES" in os.environ:
    _batches, _numbers = Predictor._batches, itertools.count()

    def _slow_batches(self, arrays):
        for batch in _batches(self, arrays):
            print("predicting", flush=True)
            if next(_numbers) >= int(os.environ.get("SLOW_AFTER", "0")):
                _pause("SLOW_BATCHES")
            yield batch

    Predictor._batches = _slow_batches
if "SLOW_SAVING" in os.environ:
    _finalize = atomicity.AtomicRenameTemporaryPath.finalize

    async def _finalize_slowly(self):
        # Each item of a checkpoint has a place, too.
        if self._final_path.name.isdecimal():
            _pause("SLOW_SAVING", "saving")
        return await _finalize(self)

    atomicity.AtomicRenameTemporaryPath.finalize = _finalize_slowly
if "SLOW_EXPORT" in os.environ:
    _step_progress = byte_progress.step_progress

    class _SlowProgress:
        def __init__(self, *arguments):
            self._bar = _step_progress(*arguments)

        def __enter__(self):
            advance = self._bar.__enter__()

            def advance_slowly(count):
                advance(count)
                _pause("SLOW_EXPORT", "exporting")

            return advance_slowly

        def __exit__(self, *error):
            return self._bar.__exit__(*error)

    byte_progress.step_progress = _SlowProgress
if "NAN_AT" in os.environ:
    _moves, _drawn = loop.to_mesh, []

    def _poisons(batch, mesh):
        # An input weight of infinity makes the loss of one batch infinite.
        _drawn.append(batch)
        weights = batch["decoder_loss_weights"].astype(np.float32)
        if len(_drawn) == int(os.environ["NAN_AT"]):
            weights = weights * np.float32(np.inf)
        return _moves({**batch, "decoder_loss_weights": weights}, mesh)

    loop.to_mesh = _poisons
if "UNREADABLE" in os.environ:
    _read_table = checkpoints.read_table

    def _fails_on_one_host(step):
        if step.name == os.environ["UNREADABLE"] and jax.process_index() == 1:
            raise UserError(f"{step} cannot be read")
        return _read_table(step)

    checkpoints.read_table = _fails_on_one_host
