"""Reading the text of compiled programs: types, calls, and how often loops run."""

import jax
import jax.numpy as jnp
import pytest

from poly_jax.planning.compiled_flops import compiled_flops
from poly_jax.planning.hlo import Shape, read_hlo, shapes
from poly_jax.planning.runs import runs

# A loop as the compiler for TPUs writes it: its counter begins at 0, grows by 1 and another 1, and is
# compared with a constant. Each of its two products is inside a fusion.
TPU_LOOP = """
HloModule jit_f, is_scheduled=true

%fused (p0: bf16[8,16], p1: bf16[16,16]) -> bf16[8,16] {
  %p0 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[16,16]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %dot.1 = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} convolution(%p0, %p1), dim_labels=bf_io->bf
}

%body (state: (s32[], bf16[8,16], bf16[16,16])) -> (s32[], bf16[8,16], bf16[16,16]) {
  %one = s32[]{:T(128)} constant(1)
  %state = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)}, /*index=2*/bf16[16,16]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = bf16[8,16]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %w = bf16[16,16]{1,0:T(8,128)} get-tuple-element(%state), index=2
  %y = bf16[8,16]{1,0:T(8,128)} fusion(%x, %w), kind=kOutput, calls=%fused
  %z = bf16[8,16]{1,0:T(8,128)} fusion(%y, %w), kind=kOutput, calls=%fused
  %next = s32[]{:T(128)} add(%count, %one)
  %last = s32[]{:T(128)} add(%one, %next)
  ROOT %made = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)}, bf16[16,16]{1,0:T(8,128)}) tuple(%last, %z, %w)
}

%condition (state.1: (s32[], bf16[8,16], bf16[16,16])) -> pred[] {
  %end = s32[]{:T(128)} constant(24)
  %state.1 = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)}, bf16[16,16]{1,0:T(8,128)}) parameter(0)
  %count.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %below = pred[]{:T(512)} compare(%count.1, %end), direction=LT
}

ENTRY %main (a: bf16[8,16], b: bf16[16,16]) -> bf16[8,16] {
  %a = bf16[8,16]{1,0:T(8,128)} parameter(0)
  %b = bf16[16,16]{1,0:T(8,128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)}, bf16[16,16]{1,0:T(8,128)}) tuple(%zero, %a, %b)
  %loop = (s32[], bf16[8,16]{1,0}, bf16[16,16]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %out = bf16[8,16]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def times(text, opcode):
    return sum(count for instruction, _, count in runs(read_hlo(text)) if instruction.opcode == opcode)


def test_a_type_is_read_without_its_layout():
    assert shapes("(f32[2,3]{1,0:T(8,128)}, /*index=1*/pred[]{:T(512)}, bf16[4]{0})") == (
        Shape("f32", (2, 3)),
        Shape("pred", ()),
        Shape("bf16", (4,)),
    )


@pytest.mark.parametrize(
    ("dtype", "expected"), [("f32", 24), ("bf16", 12), ("s8", 6), ("pred", 6), ("s4", 3), ("token", 0)]
)
def test_the_bytes_of_a_type_are_those_of_its_dtype(dtype, expected):
    assert Shape(dtype, (2, 3)).bytes == expected


def test_a_loop_for_tpus_runs_as_often_as_its_counter_says():
    assert times(TPU_LOOP, "convolution") == 2 * 12
    assert compiled_flops(read_hlo(TPU_LOOP)) == 24 * 2 * 8 * 16 * 16


def test_a_loop_that_does_not_begin_at_0_runs_less_often():
    assert times(TPU_LOOP.replace("constant(0)", "constant(4)"), "convolution") == 2 * 10


def test_a_loop_whose_counter_cannot_be_followed_runs_as_often_as_its_constant():
    changed = TPU_LOOP.replace("add(%count, %one)", "multiply(%count, %one)")
    assert times(changed, "convolution") == 2 * 24


def test_what_the_compiler_says_about_a_loop_wins():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    assert times(TPU_LOOP.replace("body=%body", known), "convolution") == 2 * 5


def test_an_axis_of_batches_in_the_form_of_a_window_counts_once():
    # For TPUs, this is what a product of 16 matrices of 12x64 and 64x4 is compiled to.
    text = """
ENTRY %main (a: bf16[16,12,64], b: bf16[16,64,4]) -> bf16[16,12,4] {
  %a = bf16[16,12,64]{2,1,0} parameter(0)
  %b = bf16[16,64,4]{2,1,0} parameter(1)
  ROOT %c = bf16[16,12,4]{2,1,0} convolution(%a, %b), window={size=16 stride=15 lhs_dilate=16}, dim_labels=0bf_0io->0bf
}
"""  # noqa: E501
    assert compiled_flops(read_hlo(text)) == 16 * 2 * 12 * 64 * 4


def test_the_compiled_program_has_the_operations_of_its_formula():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, w)[0]

    described = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 64), (6, 64, 64))]
    compiled = jax.jit(scanned).lower(*described).compile()
    assert compiled_flops(read_hlo(compiled.as_text())) == 6 * 2 * 32 * 64 * 64


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no line that begins with ENTRY"):
        read_hlo("HloModule nothing")
