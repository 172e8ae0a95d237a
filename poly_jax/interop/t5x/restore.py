"""Starts t5x's training from a checkpoint of a stock T5: takes its parameters and keeps fresh adapters."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
from t5x import state_utils

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import listing

_PARAMETERS = "target/"


def backbone_only(
    checkpoint: Mapping[str, Any], state: Mapping[str, Any], *, is_resuming: bool = False
) -> Mapping[str, Any]:
    """Keep only the backbone of a checkpoint, for t5x's `RestoreCheckpointConfig.state_transformation_fns`.

    It is used together with `fallback_to_scratch`. The checkpoint's step and optimizer state are left out, so
    training begins at step 0. If the checkpoint lacks a parameter of the backbone, t5x would initialise it at
    random; this function raises an error instead.

    Args:
      checkpoint: state in the checkpoint, whose arrays are not read yet.
      state: state of the model.
      is_resuming: whether a run continues from its own checkpoint, which then stays unchanged.

    Raises:
      UserError: the checkpoint's backbone does not fit this model.
    """
    if is_resuming:
        return checkpoint
    stored, wanted = _backbone(checkpoint), _backbone(state)
    findings = {"lacks": wanted.keys() - stored.keys(), "has unknown": stored.keys() - wanted.keys()}
    if any(findings.values()):
        text = "; ".join(
            f"{verb} {counted(len(names), 'parameter')} ({listing(names)})"
            for verb, names in findings.items()
            if names
        )
        raise UserError(f"INITIAL_CHECKPOINT_PATH does not fit the model: it {text}")
    taken = {_PARAMETERS + name: leaf for name, leaf in stored.items()}
    return traverse_util.unflatten_dict(taken, sep="/")


def _backbone(state: Mapping[str, Any]) -> dict[str, Any]:
    flat = state_utils.flatten_state_dict(state)
    names = {name: name.removeprefix(_PARAMETERS) for name in flat if name.startswith(_PARAMETERS)}
    return {short: flat[name] for name, short in names.items() if not is_adapter_parameter(short)}
