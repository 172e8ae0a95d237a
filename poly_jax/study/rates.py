"""Learning rates, chosen in the same way for every method on held-back examples of the training tasks."""

import dataclasses
from collections.abc import Callable, Sequence

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study.methods import MultitaskMethod, variant_of
from poly_jax.study.runs import Trained, adapt_tasks, seen_score
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.training.optimizer import Optimizer

TUNING_SEED = 100
"""Seed of the runs on which rates are chosen, which is not one of the compared seeds."""

MULTITASK_RATES = (3e-3, 1e-2, 3e-2)
ADAPTATION_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
ROUTER_RATES = (0.03, 0.1, 0.3)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """The settings of adapting with a variant.

    Attributes:
      variant: name of the variant.
      rate_scale: see `MultitaskMethod`.
    """

    variant: str
    rate_scale: float = 1.0

    @property
    def steps(self) -> int:
        """Number of steps; a variant that starts from fresh skills gets more."""
        return 400 if variant_of(self.variant).skills == "fresh" else 200

    @property
    def rates(self) -> Sequence[float]:
        """The learning rates that are tried: of the router if only it is trained, and else of the skills."""
        if not variant_of(self.variant).trains:
            return ()
        return (
            ROUTER_RATES
            if variant_of(self.variant).trainable == "router"
            else _scaled(ADAPTATION_RATES, self.rate_scale)
        )

    def optimizer(self, rate: float) -> Optimizer:
        """AdamW at this rate. A router trained together with skills has 0.1, as in the published recipes."""
        router = rate if variant_of(self.variant).trainable == "router" else 0.1
        return Optimizer(learning_rate=rate, router_learning_rate=router, decay="cosine")


def _scaled(rates: Sequence[float], scale: float) -> list[float]:
    return [round(scale * rate, 6) for rate in rates]


def choose_multitask_rate(
    method: MultitaskMethod, train: Callable[[float], Trained], results: ResultsFile
) -> float:
    """The learning rate whose run scores best on the training tasks' validation examples."""
    scores = {}
    for rate in _scaled(MULTITASK_RATES, method.rate_scale):

        def score(rate: float = rate) -> dict[str, float]:
            return {"seen": seen_score(train(rate), "validation")}

        key = {"stage": "tune training", "method": method.name, "rate": rate}
        scores[rate] = results.once(key, score)["seen"]
    return max(scores, key=lambda rate: scores[rate])


def choose_adaptation_rate(
    method: MultitaskMethod, variant: str, trained: Callable[[], Trained], results: ResultsFile
) -> float:
    """The learning rate that adapts best to training tasks under new names; 0 where nothing is trained."""
    adaptation = Adaptation(variant, method.rate_scale)
    if not adaptation.rates:
        return 0.0
    scores = {}
    for rate in adaptation.rates:

        def score(rate: float = rate) -> dict[str, float]:
            adapted = adapt_tasks(
                trained(),
                variant,
                benchmark().tuning,
                optimizer=adaptation.optimizer(rate),
                steps=adaptation.steps,
            )
            return {"tuning": adapted.mean}

        key = {"stage": "tune adaptation", "method": method.name, "variant": variant, "rate": rate}
        scores[rate] = results.once(key, score)["tuning"]
    return max(scores, key=lambda rate: scores[rate])
