"""Learning rates, chosen in the same way for every method on held-back examples of the training tasks."""

from collections.abc import Callable, Sequence

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study.methods import Adaptation, MultitaskMethod
from poly_jax.study.runs import Trained, adapt_tasks, seen_score
from poly_jax.tasks.skillbench.compositions import benchmark

TUNING_SEED = 100
"""Seed of the runs on which rates are chosen, which is not one of the compared seeds."""

ADAPTATION_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
ROUTER_RATES = (0.03, 0.1, 0.3)


def choose_multitask_rate(
    method: MultitaskMethod, train: Callable[[float], Trained], results: ResultsFile
) -> float:
    """The learning rate whose run scores best on the training tasks' validation examples.

    A method with one rate has nothing to choose, and is not trained for it.
    """
    rates = _scaled(method.rates, method.rate_scale)
    if len(rates) == 1:
        return rates[0]
    scores = {}
    for rate in rates:

        def score(rate: float = rate) -> dict[str, float]:
            return {"seen": seen_score(train(rate), "validation")}

        key = {"stage": "tune training", "method": method.name, "rate": rate}
        scores[rate] = results.once(key, score)["seen"]
    return max(scores, key=lambda rate: scores[rate])


def choose_adaptation_rate(
    method: MultitaskMethod, adaptation: Adaptation, trained: Callable[[], Trained], results: ResultsFile
) -> float:
    """The learning rate that adapts best to training tasks under new names; 0 where nothing is trained.

    It is the rate of the router if only the router is trained, and else the rate of the skills.
    """
    rates = _tried(method, adaptation)
    if not rates:
        return 0.0
    keys = {
        rate: {"stage": "tune adaptation", "method": method.name, "variant": adaptation.name, "rate": rate}
        for rate in rates
    }
    missing = [rate for rate, key in keys.items() if key not in results]
    if missing:
        adapted = adapt_tasks(trained(), adaptation, benchmark().tuning, missing)
        for rate, found in zip(missing, adapted, strict=True):
            results.add(keys[rate], {"tuning": found.mean})
    scores = {rate: results.once(key, dict)["tuning"] for rate, key in keys.items()}
    return max(scores, key=lambda rate: scores[rate])


def _tried(method: MultitaskMethod, adaptation: Adaptation) -> Sequence[float]:
    if not adaptation.variant.trains:
        return ()
    if adaptation.variant.trainable == "router":
        return ROUTER_RATES
    return _scaled(ADAPTATION_RATES, method.rate_scale)


def _scaled(rates: Sequence[float], scale: float) -> list[float]:
    return [round(scale * rate, 6) for rate in rates]
