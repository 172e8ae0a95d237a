"""What a token costs in decoding, read from the compiled loop."""

import re

import jax
import numpy as np

from poly_jax.model.generate import Decoding, generate

# Lengths that no other side of an array has.
INPUTS, OUTPUTS = 37, 19


def _loop_body(text: str) -> str:
    """The computations that the body of the program's only loop over tokens runs."""
    computations = dict(re.findall(r"^(?:ENTRY )?(%\S+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    (body,) = (
        name
        for name in re.findall(r"body=(%[\w.-]+)", text)
        if "decode_step" in computations[name] or str(OUTPUTS) in computations[name]
    )
    found, waiting = [], [body]
    while waiting:
        found.append(computations[waiting.pop()])
        waiting += re.findall(r"(?:calls|to_apply|body|condition)=(%[\w.-]+)", found[-1])
    return "\n".join(found)


def test_no_token_of_a_decoding_transposes_the_keys_and_values_before_it(tiny):
    inputs = jax.ShapeDtypeStruct((4, INPUTS), np.int32)
    task_ids = jax.ShapeDtypeStruct((4,), np.int32)
    decode = jax.jit(generate, static_argnums=(0, 4))
    text = decode.lower(tiny.model, tiny.parameters, inputs, task_ids, Decoding(OUTPUTS)).compile().as_text()
    body = _loop_body(text)
    assert f",{INPUTS}]" in body  # The keys of the encoded input are read there.
    moved = [
        set(sides.split(",")) for sides in re.findall(r"= \w+\[([\d,]*)\]\S* (?:transpose|copy)\(", body)
    ]
    head = str(tiny.config.head_dim)
    assert [sides for sides in moved if head in sides and {str(INPUTS), str(OUTPUTS)} & sides] == []
