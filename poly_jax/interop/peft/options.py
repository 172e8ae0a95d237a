"""The treatment of each option of PEFT's adapter_config.json (the configuration classes of PEFT 0.21.2)."""

from typing import Any

from poly_jax.weights.option_table import OptionTable, neutral, refused, used

# PEFT's options are switches and settings that are off at these values.
_OFF: tuple[Any, ...] = (None, False, "", [], {})

_ADAPTERS = (
    used("peft_type", "LORA, IA3 or POLY; any other is refused"),
    used("base_model_name_or_path", "the backbone, where `--backbone` is not given"),
    used(
        "target_modules exclude_modules",
        "which maps are adapted, as PEFT matches their names; the tensors must agree",
    ),
    refused("modules_to_save", None, [], note="further trained modules; merge the adapter with PEFT"),
    refused(
        "task_type",
        None,
        "SEQ_2_SEQ_LM",
        "CAUSAL_LM",
        "FEATURE_EXTRACTION",
        note="the other types train a head of their own",
    ),
    neutral("auto_mapping revision peft_version", "where the adapter is from"),
    neutral("inference_mode", "whether PEFT trains the adapter when it is loaded"),
)

LORA = OptionTable(
    "adapter_config.json of LoRA",
    (
        used("r lora_alpha use_rslora", "rank and scale of the update"),
        used("rank_pattern alpha_pattern", "ranks and scales of single maps, as PEFT matches their names"),
        used("lora_dropout", "`LoRA.dropout`"),
        used(
            "layers_to_transform layers_pattern",
            "which layers are adapted; in all other layers A and B are 0",
        ),
        used(
            "init_lora_weights",
            "`pissa` and `olora` are subtracted from the kernel as in PEFT; true, false, `gaussian`, `eva`,"
            " `orthogonal` and `mica` leave the kernel as it is; the rest is refused",
        ),
        refused("bias", None, "none", "all", "lora_only", note="a T5 has no biases to train"),
        refused("use_dora lora_bias use_qalora", None, False, note="updates of other kinds than LoRA's"),
        refused(
            "layer_replication target_parameters trainable_token_indices alora_invocation_tokens enable_lora",
            None,
            [],
            note="they change other parameters, or when the update is applied",
        ),
        refused(
            "megatron_config use_bdlora arrow_config kasa_config monteclora_config velora_config",
            None,
            {},
            note="variants of LoRA with parameters of their own",
        ),
        neutral(
            "loftq_config eva_config corda_config lora_ga_config",
            "settings for values of `init_lora_weights`, which is itself checked",
        ),
        neutral("fan_in_fan_out", "PEFT sets it to false for the maps of a T5"),
        neutral(
            "megatron_core qalora_group_size runtime_config merge_weights ensure_weight_tying",
            "they have no effect without an option that is refused",
        ),
        *_ADAPTERS,
    ),
    harmless=_OFF,
)

IA3 = OptionTable(
    "adapter_config.json of (IA)^3",
    (
        neutral("feedforward_modules", "the shape of a vector tells whether it rescales the input"),
        neutral("fan_in_fan_out", "PEFT sets it to false for the maps of a T5"),
        neutral("init_ia3_weights", "it only affects fresh vectors"),
        *_ADAPTERS,
    ),
    harmless=_OFF,
)

POLY = OptionTable(
    "adapter_config.json of Poly",
    (
        used("r n_tasks n_skills n_splits", "sizes of skills and routers"),
        refused("poly_type", None, "poly", note="PEFT has one router"),
        neutral("init_weights", "it only affects fresh skills"),
        *_ADAPTERS,
    ),
    harmless=_OFF,
)
