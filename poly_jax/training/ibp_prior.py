"""The Indian Buffet Process as a prior on the skills that a task uses, added to the loss of the targets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from poly_jax.errors import UserError
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Router
from poly_jax.weights.parameter_names import axis, is_router, leaf
from poly_jax.weights.tree import flatten


def ibp_negative_log_prior(
    z: Float[Array, "*matrices tasks skills"], concentration: float
) -> Float[Array, "*matrices"]:
    """`-log P(Z | alpha)` of the Indian Buffet Process (arXiv 2202.13914, eq. 4; Griffiths and Ghahramani).

    `P(Z) = alpha^K / prod_h K_h! * exp(-alpha H_T) * prod_k (T - m_k)! (m_k - 1)! / T!`, where K counts the
    columns that have a task, K_h counts the columns with history h (columns that are equal to one another),
    m_k is the number of tasks in column k, and H_T is the T-th harmonic number.

    The value is exact where Z holds zeros and ones, and finite for values between them. The gradient belongs
    to the following continuous form. `prod_h K_h!` is a product over columns; the factor of a column is one
    more than the number of earlier columns that equal it. Columns i and j differ in `m_i + m_j - 2 z_i . z_j`
    rows; the degree to which they are equal is 1 minus this number, and at least 0. A column counts with
    weight min(m_k, 1).

    Args:
      z: degree in [0, 1] to which each task uses each skill.
      concentration: alpha, the expected number of skills of a task.
    """
    n_tasks = z.shape[-2]
    m = z.sum(-2)
    used = jnp.minimum(m, 1.0)
    # The logarithm of an empty column's factorials is infinite, but the column must not count.
    m = jnp.maximum(m, 1e-6)
    together = jnp.einsum("...ti,...tj->...ij", z, z)
    differing = m[..., :, None] + m[..., None, :] - 2 * together
    equal = jnp.maximum(1 - differing, 0) * used[..., None, :]
    earlier = jnp.tril(equal, -1).sum(-1)
    column = (
        jnp.log(concentration)
        + gammaln(n_tasks - m + 1)
        + gammaln(m)
        - gammaln(n_tasks + 1.0)
        - jnp.log1p(earlier)
    )
    harmonic = sum(1 / i for i in range(1, n_tasks + 1))
    return concentration * harmonic - (used * column).sum(-1)


@dataclasses.dataclass(frozen=True)
class IBPPrior:
    """The prior on the allocation of every learned router, as a loss that training adds.

    Z is the sigmoid of a router's logits. It is rounded in the forward pass, because the equation is defined
    for zeros and ones, and keeps the sigmoid's gradient. Each split (MHR head) of each router has its own
    matrix. The loss is the mean over all matrices, so its weight means the same at every granularity.

    Attributes:
      weight: weight of the prior, which is added to the targets' loss.
      concentration: alpha, the concentration of the process.
    """

    weight: float = 1e-2
    concentration: float = 3.0

    def __post_init__(self):
        if self.concentration <= 0:
            raise UserError(f"IBPPrior.concentration is {self.concentration}; it must be above 0")

    def check(self, router: Router) -> None:
        """Raise a UserError if the router has no allocation that the prior applies to."""
        if not isinstance(router, LearnedRouter) or not router.allocates:
            kind = type(router).__name__
            scores = f" with scores {router.scores!r}" if isinstance(router, LearnedRouter) else ""
            raise UserError(
                f"IBPPrior needs a LearnedRouter with scores 'sigmoid' or 'straight_through', and the run has"
                f" {kind}{scores}; bind train.prior = None"
            )

    def __call__(self, trained: dict[str, Any]) -> Float[Array, ""]:
        """Return the mean negative log-prior of the routers in a tree, without its weight."""
        total, count = jnp.zeros(()), 0
        for path, logits in flatten(trained).items():
            if not (is_router(path) and leaf(path) == "logits"):
                continue
            soft = jax.nn.sigmoid(logits.astype(jnp.float32))
            hard = soft + jax.lax.stop_gradient(jnp.round(soft) - soft)
            tasks, splits = axis(path, "tasks"), axis(path, "splits")
            assert tasks is not None
            assert splits is not None
            priors = ibp_negative_log_prior(jnp.moveaxis(hard, tasks, splits), self.concentration)
            total, count = total + priors.sum(), count + priors.size
        return total / max(count, 1)
