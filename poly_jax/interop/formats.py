"""The formats of `poly-jax export`, in a separate module that does not import JAX, for a fast `--help`."""

from typing import Literal, get_args

Format = Literal["backbone", "t5x", "hugging_face", "t5x_adapters", "peft_poly", "peft_lora"]

FORMATS: tuple[Format, ...] = get_args(Format)
