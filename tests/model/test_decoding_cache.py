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


def test_beams_that_go_on_from_others_leave_the_keys_and_values_where_they_are(tiny):
    """The cache of all beams was gathered and copied at every token, which took a tenth of the time."""
    beams = 3
    inputs = jax.ShapeDtypeStruct((4, INPUTS), np.int32)
    task_ids = jax.ShapeDtypeStruct((4,), np.int32)
    decode = jax.jit(generate, static_argnums=(0, 4))
    decoding = Decoding(OUTPUTS, n_beams=beams)
    text = decode.lower(tiny.model, tiny.parameters, inputs, task_ids, decoding).compile().as_text()
    loop = [
        (instruction.opcode, shape.sides)
        for instruction, _, times in runs(read_hlo(text))
        for shape in instruction.shapes
        if times > 1
    ]
    kept = np.prod((4, beams, tiny.config.num_heads, tiny.config.head_dim, OUTPUTS))
    touched = {opcode for opcode, sides in loop if np.prod(sides, initial=1) == kept}
    assert "dynamic-update-slice" in touched
    assert not touched & {"gather", "transpose", "copy"}
