"""T-Few's loss for examples with answer choices: language modelling, multiple choice and unlikelihood."""

import dataclasses

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.model.choices import present, scores_of_choices
from poly_jax.model.loss import Apply, Batch, Terms
from poly_jax.model.scoring import token_log_probs

# Bounds -log(1 - p) where the model is sure of a wrong token (T-Few's code).
UNLIKELIHOOD_EPSILON = 1e-2
_LOWEST = jnp.finfo(jnp.float32).min


@dataclasses.dataclass(frozen=True)
class ChoiceLoss:
    """Sum of three terms, each times its weight (arXiv 2205.05638, section 3.2).

    `lm`: cross-entropy of the right choice, mean over its tokens in the batch. `multiple_choice`:
    cross-entropy of the right choice under the softmax over all choices' scores, a score being the sum of
    log-probabilities over (number of tokens) ^ length_norm; mean over examples. `unlikelihood`:
    -log(1 - p + 0.01), mean over the tokens of the wrong choices. A choice without tokens is absent; an
    example without a right choice (a row that fills up a batch) counts nowhere.

    Attributes:
      lm: weight of the term `lm`. A term of weight 0 is not computed.
      multiple_choice: weight of the term `multiple_choice`.
      unlikelihood: weight of the term `unlikelihood`.
      length_norm: exponent of the number of tokens in a score: 1 in the recipes; 0 compares sums.
    """

    lm: float = 1.0
    multiple_choice: float = 1.0
    unlikelihood: float = 1.0
    length_norm: float = 1.0

    def __post_init__(self):
        weights = (self.lm, self.multiple_choice, self.unlikelihood)
        if min(weights) < 0 or not any(weights):
            raise UserError(
                f"ChoiceLoss.lm, .multiple_choice and .unlikelihood are {', '.join(map(str, weights))}; give"
                " weights of 0 or more, one of them above 0"
            )

    @property
    def needs_choices(self) -> bool:
        """True: `choices` [batch, choices, length] and `labels` [batch], the index of each right choice."""
        return True

    def totals(self, apply: Apply, batch: Batch) -> Terms:
        """The total of each term over the batch. Every input is encoded once."""
        logits = apply(
            batch["encoder_input_tokens"], batch["choices"], batch["task_ids"], method="choice_logits"
        )
        return self.totals_of(logits, batch["choices"], batch["labels"])

    def totals_of(
        self,
        logits: Float[Array, "batch choices length vocab"],
        choices: Int[Array, "batch choices length"],
        labels: Int[Array, "batch"],
    ) -> Terms:
        """The total of each term, times its weight."""
        log_probs = token_log_probs(logits, choices)
        right, wrong = _right_and_wrong(choices, labels)
        totals = {
            "lm": lambda: -jnp.sum(log_probs * right),
            "multiple_choice": lambda: jnp.sum(
                _cross_entropy(logits, choices, labels, self.length_norm) * right.any(axis=(1, 2))
            ),
            "unlikelihood": lambda: -jnp.sum(jnp.log1p(UNLIKELIHOOD_EPSILON - jnp.exp(log_probs)) * wrong),
        }
        return {name: weight * totals[name]() for name, weight in self._weights.items()}

    def divisors(self, batch: Batch) -> Terms:
        """The numbers of tokens of right choices, of examples, and of tokens of wrong choices.

        Raises:
          UserError: the batch has no choices.
        """
        if "choices" not in batch:
            raise UserError(
                "ChoiceLoss needs examples with answer choices, and the task's have no choices; use TokenLoss"
            )
        right, wrong = _right_and_wrong(batch["choices"], batch["labels"])
        divisors = {
            "lm": right.sum(dtype=jnp.float32),
            "multiple_choice": right.any(axis=(1, 2)).sum(dtype=jnp.float32),
            "unlikelihood": wrong.sum(dtype=jnp.float32),
        }
        return {name: divisors[name] for name in self._weights}

    @property
    def _weights(self) -> dict[str, float]:
        weights = {"lm": self.lm, "multiple_choice": self.multiple_choice, "unlikelihood": self.unlikelihood}
        return {name: weight for name, weight in weights.items() if weight}


def _right_and_wrong(choices: Int[Array, "batch choices length"], labels: Int[Array, "batch"]):
    """Masks of the tokens of right choices, and of those of wrong choices."""
    is_right = jnp.arange(choices.shape[1]) == labels[:, None]
    right = (choices > 0) & is_right[..., None]
    # A row without its right choice only fills up a batch.
    wrong = (choices > 0) & ~is_right[..., None] & right.any(axis=(1, 2), keepdims=True)
    return right, wrong


def _cross_entropy(logits, choices, labels, length_norm) -> Float[Array, "batch"]:
    scores = scores_of_choices(logits, choices, length_norm)
    scores = jnp.where(present(choices), scores, _LOWEST)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels)
