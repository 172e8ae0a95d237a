"""The learned router of Polytropon and MHR: a table of logits per task, split (MHR head) and skill."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.routing.router import Parameters, Router, Sizes, Uniform
from poly_jax.routing.softmax import check_enough, check_temperature, check_top_k, softmax_over_largest
from poly_jax.routing.task_rows import task_rows
from poly_jax.weights.parameter_spec import ParameterSpec, uniform_init

Scores = Literal["sigmoid", "straight_through", "l2", "softmax"]

_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class LearnedRouter(Router):
    """Logits Z [tasks, splits, skills], normalised over skills (arXiv 2202.13914 eq. 2; 2211.03831 eq. 5).

    With one split this is Poly (Polytropon), with several it is MHR (called Poly-S in v1 of the paper).

    Attributes:
      sampling: while training, draw each weight from a relaxed Bernoulli distribution whose logit is Z, anew
        for every example. Evaluation always uses the sigmoid.
      temperature: temperature of the sigmoid or softmax, in training and in evaluation.
      scores: way to turn a logit into a non-negative score: "sigmoid"; "straight_through" (rounded sigmoid
        forward, the sigmoid's gradient backward); "l2" (logits divided by their L2 norm over skills, which
        may be negative and are not normalised further); "softmax".
      top_k: number of largest logits that "softmax" keeps; 0 keeps all.
      logit_dropout: probability of dropping a score while training, before the weights are normalised.
      shared_skill: whether the last skill's score is 1 for every task, before the weights are normalised.
      average_correction: whether scores are scaled by sqrt(splits / skills), not normalised over skills.
    """

    sampling: bool = True
    temperature: float = 1.0
    scores: Scores = "sigmoid"
    top_k: int = 0
    logit_dropout: float = 0.0
    shared_skill: bool = False
    average_correction: bool = False

    def __post_init__(self):
        check_literal_fields(self)
        check_temperature(self, self.temperature)
        if not 0 <= self.logit_dropout < 1:
            raise UserError(f"LearnedRouter.logit_dropout is {self.logit_dropout}; it must be in [0, 1)")
        check_top_k(self, self.top_k)
        if self.top_k and self.scores != "softmax":
            raise UserError(f"LearnedRouter.top_k is {self.top_k}; it needs LearnedRouter.scores = 'softmax'")

    @property
    def allocates(self) -> bool:
        """Whether each score is a sigmoid of its own logit: the degree to which the task uses the skill."""
        return self.scores in ("sigmoid", "straight_through")

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number that is requested, which must allow for `top_k`."""
        return check_enough(self, self.top_k, requested)

    def parameters(self, sizes: Sizes) -> dict[str, ParameterSpec]:
        """`logits` [tasks, splits, skills], drawn from U(-1e-3, 1e-3)."""
        shape = (sizes.n_tasks, sizes.n_splits, sizes.n_skills)
        return {"logits": ParameterSpec(shape, uniform_init(1e-3), ("tasks", "splits", "skills"))}

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """The mixing weights of each row's task; see `Router.weights`."""
        logits = task_rows(parameters["logits"], task_ids).astype(jnp.float32)
        if self.sampling and uniform is not None and self.allocates:
            logits = _relaxed_bernoulli_logits(logits, uniform(logits.shape))
        scores = self._scores(logits)
        if uniform is not None and self.logit_dropout:
            keep = uniform(scores.shape) >= self.logit_dropout
            scores = jnp.where(keep, scores / (1 - self.logit_dropout), 0.0)
        if self.shared_skill:
            scores = scores.at[..., -1].set(1.0)
        if self.average_correction:
            return scores * math.sqrt(sizes.n_splits / sizes.n_skills)
        if self.scores == "l2":
            return scores
        return scores / (scores.sum(-1, keepdims=True) + _EPSILON)

    def _scores(self, logits: Float[Array, "*rows splits skills"]) -> Float[Array, "*rows splits skills"]:
        match self.scores:
            case "sigmoid":
                return jax.nn.sigmoid(logits / self.temperature)
            case "straight_through":
                soft = jax.nn.sigmoid(logits / self.temperature)
                return soft + jax.lax.stop_gradient(jnp.round(soft) - soft)
            case "l2":
                # The gradient of a norm is not defined at 0, where annealed logits may be.
                square = jnp.sum(logits**2, axis=-1, keepdims=True)
                return logits * jax.lax.rsqrt(jnp.maximum(square, _EPSILON**2))
            case "softmax":
                return softmax_over_largest(logits, self.top_k, self.temperature)


def _relaxed_bernoulli_logits(
    logits: Float[Array, "*shape"], uniform: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """`Z + logit(u)`: its sigmoid is a binary concrete sample (Maddison et al., arXiv 1611.00712)."""
    # Draws of exactly 0 would give infinite logits: with 0 for every skill nothing is left to normalise.
    tiny = jnp.finfo(uniform.dtype).eps
    u = jnp.clip(uniform, tiny, 1 - tiny)
    return logits + jnp.log(u) - jnp.log1p(-u)
