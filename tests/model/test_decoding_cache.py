"""What a token costs in decoding, read from the compiled loop."""

import jax
import numpy as np

from poly_jax.model.generate import Decoding, generate
from poly_jax.planning.hlo import read_hlo
from poly_jax.planning.runs import runs

# Lengths that no other side of an array has.
INPUTS, OUTPUTS = 37, 19


def test_no_token_of_a_decoding_transposes_the_keys_and_values_before_it(tiny):
    inputs = jax.ShapeDtypeStruct((4, INPUTS), np.int32)
    task_ids = jax.ShapeDtypeStruct((4,), np.int32)
    decode = jax.jit(generate, static_argnums=(0, 4))
    text = decode.lower(tiny.model, tiny.parameters, inputs, task_ids, Decoding(OUTPUTS)).compile().as_text()
    loop = [
        (instruction.opcode, set(shape.sides))
        for instruction, _, times in runs(read_hlo(text))
        for shape in instruction.shapes
        if times > 1
    ]
    head = tiny.config.head_dim
    assert any({head, INPUTS} <= sides for _, sides in loop)  # The keys of the encoded input are read there.
    moved = [sides for opcode, sides in loop if opcode in ("transpose", "copy")]
    assert [sides for sides in moved if head in sides and {INPUTS, OUTPUTS} & sides] == []
