"""Rules that map the logical axes of skills and routers to t5x's mesh."""

from t5x import partitioning

_AXES = ("tasks", "splits", "skills", "lora_in", "lora_out", "lora_rank", "lora_rank_out")


def logical_axis_rules(
    activation_partitioning_dims: int = 1, parameter_partitioning_dims: int = 1
) -> partitioning.LogicalAxisRules:
    """Return t5x's rules for a T5, and rules that replicate adapters, which are small, on every device.

    The arguments are the same as in `t5x.partitioning.standard_logical_axis_rules`.
    """
    ours = [(axis, None) for axis in _AXES]
    return partitioning.standard_logical_axis_rules(
        activation_partitioning_dims, parameter_partitioning_dims, additional_rules=ours
    )
