"""Mappings, keys and arrays from outside, and what is said of wrong ones."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.interop.incoming import (
    check_keys,
    check_mapping,
    flatten,
    float_array,
    plain_array,
)


class Unreadable:
    """As a tensor that needs a gradient, or one on another device."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


def test_check_mapping():
    check_mapping("tree", {"a": 1})
    check_mapping("tree", {})
    with pytest.raises(TypeError, match=r"^tree: expected a mapping of arrays, got list$"):
        check_mapping("tree", ["a"])
    with pytest.raises(TypeError, match=r"^tree: expected keys that are strings, got 3$"):
        check_mapping("tree", {"a": 1, 3: 2})


def test_check_keys():
    check_keys("tree", {"a": 1, "b": 2}, ["b", "a"])
    with pytest.raises(ValueError, match=r"^tree: missing 'b', 'c'; expected exactly: a, b, c$"):
        check_keys("tree", ["a"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^tree: unknown 'x'; expected exactly: a$"):
        check_keys("tree", ["a", "x"], ["a"])


def test_check_keys_names_what_an_unknown_key_may_be():
    got = ["bias_ih_l0", "weight_ih_l0_rev", "scale"]
    expected = ["bias_ih_l0", "weight_hh_l0_reverse", "weight_ih_l0_reverse"]
    hint = r"unknown 'weight_ih_l0_rev' \(did you mean 'weight_ih_l0_reverse'\?\), 'scale';"
    with pytest.raises(ValueError, match=hint):
        check_keys("tree", got, expected)
    with pytest.raises(ValueError, match=r"unknown 'aaaa' \(did you mean 'aaa'\?\), 'aaab';"):
        check_keys("tree", ["aaaa", "aaab"], ["aaa"])  # one name may be one key's only


def test_flatten():
    assert flatten("tree", {"a": {"b": 1}, "c": 2}) == {"a/b": 1, "c": 2}
    with pytest.raises(TypeError, match="tree: expected a mapping of arrays, got int"):
        flatten("tree", 3)
    for tree in ({1: 2}, {"a": {1: 2}}):
        with pytest.raises(TypeError, match="tree: expected keys that are strings, got 1"):
            flatten("tree", tree)


def test_plain_array():
    assert plain_array("w", np.ones((2, 3)).T).flags["C_CONTIGUOUS"]
    with pytest.raises(TypeError, match=r"^w: expected an array, got list \(.*inhomogeneous"):
        plain_array("w", [[1], [1, 2]])
    for error in (RuntimeError("detach it"), TypeError("detach it")):
        with pytest.raises(TypeError, match=r"^w: expected an array, got Unreadable \(detach it"):
            plain_array("w", Unreadable(error))


def test_dtypes_that_numpy_lacks_come_through_dlpack():
    class Tensor(Unreadable):
        def __dlpack__(self, **options):
            return jnp.ones(2, jnp.bfloat16).__dlpack__(**options)

        def __dlpack_device__(self):
            return jnp.ones(2, jnp.bfloat16).__dlpack_device__()

    got = plain_array("w", Tensor(TypeError("unsupported")))
    assert type(got) is np.ndarray
    assert got.dtype == jnp.bfloat16

    class Elsewhere(Unreadable):
        def __dlpack__(self, **options):
            raise BufferError("on another device")

    with pytest.raises(TypeError, match=r"^w: expected an array, got Elsewhere \(copy it first\)"):
        plain_array("w", Elsewhere(TypeError("copy it first")))


def test_float_array():
    assert float_array("w", [[1.0, 2.0]]).shape == (1, 2)
    assert float_array("w", jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(TypeError, match="w: expected an array of floats, got dtype object"):
        float_array("w", [None])
    for dtype in ("int64", "bool", "complex64", "U1"):
        with pytest.raises(TypeError, match="w: expected an array of floats, got dtype "):
            float_array("w", np.zeros(2, dtype))
    with pytest.raises(TypeError, match="w: expected floats of at most 64 bits, got dtype "):
        float_array("w", np.ones(2, "longdouble"))


def test_the_order_of_bytes_is_the_machines():
    array = np.arange(3).astype("float32")
    for order in "<>":
        got = float_array("w", array.astype(array.dtype.newbyteorder(order)))
        assert got.dtype == "float32"  # and so not of the other order
        np.testing.assert_array_equal(got, array)
