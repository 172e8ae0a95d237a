"""Predicts and scores any number of examples with a compiled program of one batch shape."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.data.trimmed import SHORTEST_INPUTS, SHORTEST_TARGETS, row_widths
from poly_jax.errors import UserError
from poly_jax.model.choices import choice_scores
from poly_jax.model.decoding import Decoded
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.scoring import decoder_inputs, sequence_scores
from poly_jax.model.transformer import Transformer
from poly_jax.routing.task_ids import check_task_ids
from poly_jax.training.mesh import batch_sharding, check_batch_size, on_mesh, replicated, row_devices
from poly_jax.training.restore import Restored

Advance = Callable[[int], None]
Arrays = dict[str, np.ndarray]

_SHORTEST = {"inputs": SHORTEST_INPUTS, "targets": SHORTEST_TARGETS}


class Predictions(NamedTuple):
    """Outputs of examples, in their order.

    tokens: tokens of each example's best output, up to and with end of sequence, then padding (0).
    scores: log-probabilities of the outputs, divided by length ** length_penalty after a beam search.
    """

    tokens: Int[np.ndarray, "examples max_length"]
    scores: Float[np.ndarray, "examples"]


class Predictor:
    """A restored model that predicts and scores, each example with its own task's adapters.

    Examples that all have the same task share one mix of the skills, where others have a mix each. Inputs and
    targets lose padding that no example of a batch needs (`poly_jax.data.trimmed`). A program is compiled
    once for each of these. Each host passes all examples and gets all results; the devices share every batch.
    """

    def __init__(
        self, restored: Restored, decoding: Decoding, mesh: Mesh, batch_size: int = 32, seed: int = 0
    ) -> None:
        """Prepare batches of `batch_size` examples over all devices of the mesh that holds the parameters.

        `seed` is used by a decoding that samples. Its samples depend on the order of the examples and the
        batch size.

        Raises:
          UserError: the batch cannot be spread over the devices.
        """
        check_batch_size(batch_size, mesh)
        self._restored, self._decoding = restored, decoding
        self._mesh, self._batch_size = mesh, batch_size
        self._key = jax.random.key(seed)
        self._decode = decode_program(restored.model, decoding, mesh)
        self._score = jax.jit(self._score_batch, out_shardings=replicated(mesh))
        self._score_choices = jax.jit(self._score_batch_of_choices, out_shardings=replicated(mesh))

    def with_parameters(self, parameters: dict[str, Any]) -> "Predictor":
        """Return a predictor for other parameters of the same model, without compiling again."""
        other = copy.copy(self)
        other._restored = dataclasses.replace(self._restored, parameters=parameters)
        return other

    def predict(
        self,
        inputs: Int[np.ndarray, "examples length"],
        task_ids: Int[np.ndarray, "examples"],
        advance: Advance | None = None,
    ) -> Predictions:
        """Decode every example.

        Args:
          inputs: tokens of the inputs, padded with 0.
          task_ids: task ids from the run's table.
          advance: called with the number of examples that were completed since its last call.

        Raises:
          UserError: a task id is not in the table.
        """
        decoding = self._decoding
        tokens = np.zeros((len(inputs), decoding.max_length), np.int32)
        scores = np.zeros(len(inputs), np.float32)
        for number, (rows, tasks, batch) in enumerate(self._batches(task_ids, {"inputs": inputs})):
            key = jax.random.fold_in(self._key, number) if decoding.temperature else None
            decoded = self._decode(self._restored.parameters, batch["inputs"], tasks, key)
            # The last batch is cut on the host, because indexing a device array would compile again.
            tokens[rows] = np.asarray(decoded.tokens)[: len(rows)]
            scores[rows] = np.asarray(decoded.scores)[: len(rows)]
            self._check_numbers(scores[rows], rows, task_ids)
            if advance:
                advance(len(rows))
        return Predictions(tokens, scores)

    def score(
        self,
        inputs: Int[np.ndarray, "examples length"],
        targets: Int[np.ndarray, "examples target_length"],
        task_ids: Int[np.ndarray, "examples"],
        advance: Advance | None = None,
    ) -> Float[np.ndarray, "examples"]:
        """Return the log-probability of each example's target, summed over its tokens and end of sequence.

        Targets are padded with 0. The other arguments and the errors are the same as in `predict`.
        """
        return self._scores(self._score, inputs, targets, task_ids, advance)

    def score_choices(
        self,
        inputs: Int[np.ndarray, "examples length"],
        choices: Int[np.ndarray, "examples choices target_length"],
        task_ids: Int[np.ndarray, "examples"],
        advance: Advance | None = None,
    ) -> Float[np.ndarray, "examples choices"]:
        """Return the log-probability of each choice of each example, summed over its tokens and its end.

        Each input is encoded once. A choice without tokens is absent and has -inf. Choices are padded with 0.
        The other arguments and the errors are the same as in `predict`.
        """
        return self._scores(self._score_choices, inputs, choices, task_ids, advance)

    def _scores(
        self,
        program: Callable[..., jax.Array],
        inputs: Int[np.ndarray, "examples length"],
        targets: Int[np.ndarray, "examples *choices target_length"],
        task_ids: Int[np.ndarray, "examples"],
        advance: Advance | None,
    ) -> Float[np.ndarray, "examples *choices"]:
        """Run a program on batches of all examples and join its results."""
        scores = np.zeros(targets.shape[:-1], np.float32)
        for rows, tasks, batch in self._batches(task_ids, {"inputs": inputs, "targets": targets}):
            done = program(self._restored.parameters, batch["inputs"], batch["targets"], tasks)
            scores[rows] = np.asarray(done)[: len(rows)]
            self._check_numbers(scores[rows], rows, task_ids)
            if advance:
                advance(len(rows))
        return scores

    def _check_numbers(
        self,
        scores: Float[np.ndarray, "rows *choices"],
        rows: Int[np.ndarray, "rows"],
        task_ids: Int[np.ndarray, "examples"],
    ) -> None:
        """Refuse outputs of a model that computes NaN, because metrics would count them as wrong answers."""
        broken = np.isnan(scores).reshape(len(scores), -1).any(axis=-1)
        if broken.any():
            example = int(rows[np.argmax(broken)])
            task = self._restored.table.name(int(task_ids[example]))
            raise UserError(
                f"the log-probability of example {example}, of task {task!r}, is not a number (NaN): the "
                f"weights of {self._restored.step} are not finite, or {self._restored.model.config.dtype} is "
                "too small for what they compute; use an earlier checkpoint, or T5Config.dtype = 'float32'"
            )

    def _batches(
        self, task_ids: Int[np.ndarray, "examples"], arrays: Arrays
    ) -> Iterator[tuple[Int[np.ndarray, "rows"], jax.Array, dict[str, jax.Array]]]:
        """Yield the examples of each batch, their tasks or the one that all examples have, and the batch.

        The arrays are on the mesh. Examples that need the same widths come together, so that most batches can
        lose padding. The last batch repeats its last row.
        """
        check_task_ids(task_ids, len(self._restored.table))
        count, sharding = len(task_ids), batch_sharding(self._mesh)
        # The last key comes first.
        needed = {name: row_widths(leaf, _SHORTEST[name]) for name, leaf in arrays.items()}
        order = np.lexsort(list(needed.values())[::-1])
        one_task = bool((task_ids == task_ids[:1]).all())
        with on_mesh(self._mesh):
            for first in range(0, count, self._batch_size):
                # A repeated row ends when its original does, so the added rows do not prolong decoding.
                places = order[np.minimum(np.arange(first, first + self._batch_size), count - 1)]
                batch = {
                    name: _spread(leaf[places, ..., : needed[name][places].max()].astype(np.int32), sharding)
                    for name, leaf in arrays.items()
                }
                tasks = np.asarray(task_ids[0] if one_task else task_ids[places], np.int32)
                placed = _spread(tasks, replicated(self._mesh) if one_task else sharding)
                yield places[: count - first], placed, batch

    def _score_batch(
        self,
        parameters: dict[str, Any],
        inputs: Int[Array, "batch length"],
        targets: Int[Array, "batch target_length"],
        task_ids: Int[Array, "*rows"],
    ) -> Float[Array, "batch"]:
        shifted = decoder_inputs(targets, self._restored.model.config.decoder_start_id)
        logits: Any = self._restored.model.apply({"params": parameters}, inputs, shifted, task_ids)
        return sequence_scores(logits, targets, (targets > 0).astype(jnp.float32))

    def _score_batch_of_choices(
        self,
        parameters: dict[str, Any],
        inputs: Int[Array, "batch length"],
        choices: Int[Array, "batch choices target_length"],
        task_ids: Int[Array, "*rows"],
    ) -> Float[Array, "batch choices"]:
        return choice_scores(self._restored.model, parameters, inputs, choices, task_ids, length_norm=0.0)


def rows_for(examples: int, batch_size: int, mesh: Mesh) -> int:
    """Return the half, quarter, ... of a batch size that holds this many examples and the mesh divides."""
    while batch_size % (2 * row_devices(mesh)) == 0 and batch_size // 2 >= examples:
        batch_size //= 2
    return batch_size


def decode_program(model: Transformer, decoding: Decoding, mesh: Mesh) -> Any:
    """Return the jitted function that predicts the best output of each row of a batch.

    Args:
      model: the network.
      decoding: way to choose outputs.
      mesh: the mesh that the parameters and the batch are on.

    Returns:
      A function of the parameters, inputs [batch, length], the task ids [batch] or that of all rows [], and a
      random key or None.
    """

    def decode(
        parameters: dict[str, Any],
        inputs: Int[Array, "batch length"],
        task_ids: Int[Array, "*rows"],
        key: PRNGKeyArray | None,
    ) -> Decoded:
        decoded = generate(model, parameters, inputs, task_ids, decoding, key)
        if decoding.n_beams > 1:
            return Decoded(decoded.tokens[:, 0], decoded.scores[:, 0])
        return decoded

    return jax.jit(decode, out_shardings=replicated(mesh))


def _spread(rows: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Make one array over the devices of all hosts from rows that every host holds completely."""
    return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)
