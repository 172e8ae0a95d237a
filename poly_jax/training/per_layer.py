"""Applies an update rule to each layer's arrays separately, even where layers are stacked for a scan."""

from typing import Any

import jax
import optax

from poly_jax.weights.parameter_names import is_stacked
from poly_jax.weights.tree import flatten, merge, unflatten


def per_layer(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return a rule that treats every layer's part of a stacked array as a separate array.

    Rules that look at whole arrays need this. Adafactor's update clipping, its relative steps and its factors
    of the second moment concern one matrix each (arXiv 1804.04235; T5X's Adafactor also leaves out the axis
    of scanned layers). Parameters below `layers` have the layers on axis 0.
    """

    def init(params: optax.Params) -> Any:
        parts = _parts(params)
        # Without stacked arrays the state is the rule's own state, which checkpoints hold.
        if list(parts) == [_APART]:
            return rule.init(params)
        return {name: _over(name, rule.init)(part) for name, part in parts.items()}

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        parts = _parts(params)
        if list(parts) == [_APART]:
            return rule.update(updates, state, params)
        gradients = _parts(updates)
        done = {
            name: _over(name, rule.update)(gradients[name], state[name], part) for name, part in parts.items()
        }
        new = merge(*(part for part, _ in done.values()))
        return new, {name: after for name, (_, after) in done.items()}

    return optax.GradientTransformation(init, update)


_APART = "apart"


def _over(name: str, function: Any) -> Any:
    return function if name == _APART else jax.vmap(function)


def _parts(tree: Any) -> dict[str, Any]:
    """Split a tree into arrays without layers, and stacked arrays by depth, because vmap needs one size."""
    parts: dict[str, dict[str, Any]] = {_APART: {}}
    for path, leaf in flatten(tree).items():
        # Optax's masks leave nodes that hold no array.
        stacked = is_stacked(path) and not isinstance(leaf, optax.MaskedNode)
        parts.setdefault(f"stacks_of_{leaf.shape[0]}" if stacked else _APART, {})[path] = leaf
    return {name: unflatten(part) for name, part in parts.items()}
