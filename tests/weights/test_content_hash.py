"""The hash by which a backbone is known again."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.weights.content_hash import content_hash, joined_hash, same_contents, tensor_digest
from poly_jax.weights.tensors import of_tree

ARRAYS = {
    name: np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for name, shape in {"wo": (4, 6), "embedding": (3, 8), "scale": (5,)}.items()
}


def hashed(arrays):
    return content_hash(of_tree(arrays))


def earlier_hash(arrays):
    """The hash of earlier versions, written down here once more: SHA-256 over all arrays in bfloat16."""
    text = hashlib.sha256()
    for name in sorted(arrays):
        text.update(f"{name} {arrays[name].shape};".encode())
        text.update(np.asarray(arrays[name].astype(jnp.bfloat16)).tobytes())
    return text.hexdigest()


def test_the_hash_depends_on_neither_the_order_nor_the_precision():
    assert hashed(dict(reversed(ARRAYS.items()))) == hashed(ARRAYS)
    assert hashed({name: array.astype(jnp.bfloat16) for name, array in ARRAYS.items()}) == hashed(ARRAYS)


@pytest.mark.parametrize(
    "changed",
    [
        {**ARRAYS, "scale": -ARRAYS["scale"]},
        {**ARRAYS, "wo": ARRAYS["wo"].T},
        {**ARRAYS, "wo": ARRAYS["wo"].reshape(6, 4)},
        {**ARRAYS, "more": ARRAYS["scale"]},
        {("shift" if name == "scale" else name): array for name, array in ARRAYS.items()},
    ],
)
def test_the_hash_depends_on_values_shapes_and_names(changed):
    assert hashed(changed) != hashed(ARRAYS)


def test_digests_that_several_hosts_computed_give_the_hash_of_one():
    first = {name: tensor_digest(name, ARRAYS[name]) for name in ("wo",)}
    second = {name: tensor_digest(name, ARRAYS[name]) for name in ("scale", "embedding")}
    assert joined_hash({**second, **first}) == hashed(ARRAYS)


def test_contents_are_compared_with_a_hash_of_either_form():
    other = {**ARRAYS, "scale": -ARRAYS["scale"]}
    for recorded in (hashed(ARRAYS), earlier_hash(ARRAYS)):
        assert same_contents(recorded, hashed(ARRAYS), lambda: of_tree(ARRAYS))
        assert not same_contents(recorded, hashed(other), lambda: of_tree(other))


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        (hashed(ARRAYS), "random"),
        ("random", "random"),
        (None, hashed(ARRAYS)),
        (hashed(ARRAYS), None),
        (None, None),
    ],
)
def test_tensors_are_read_again_for_an_earlier_form_only(recorded, found):
    def unread():
        raise AssertionError("read")

    assert same_contents(recorded, found, unread) == (recorded == found)
