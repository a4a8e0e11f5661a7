"""Checks that all layouts share."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore
from seqnets.interop.layout import (
    check_keys,
    export_params,
    flatten,
    float_array,
    gates_from_width,
    import_params,
    make_cell,
)


class Child(LSTM):
    """A cell with the parameters of an LSTM and perhaps other equations."""


def lstm_params(**changes):
    arrays = {"w_x": (2, 12), "w_h": (3, 12), "b": (12,)} | changes
    return GatedParams(**{key: jnp.ones(shape) for key, shape in arrays.items()})


def test_check_keys():
    check_keys("tree", {"a": 1, "b": 2}, ["b", "a"])
    with pytest.raises(ValueError, match=r"^tree: missing 'b', 'c'; expected exactly: a, b, c$"):
        check_keys("tree", ["a"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^tree: unknown 'x'; expected exactly: a$"):
        check_keys("tree", ["a", "x"], ["a"])


def test_flatten():
    assert flatten("tree", {"a": {"b": 1}, "c": 2}) == {"a/b": 1, "c": 2}
    with pytest.raises(TypeError, match="tree: expected a mapping of parameters, got int"):
        flatten("tree", 3)


def test_float_array():
    assert float_array("w", [[1.0, 2.0]]).shape == (1, 2)
    assert float_array("w", jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(TypeError, match="w: expected an array of floats, got dtype object"):
        float_array("w", [None])


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_gates_from_width(gates):
    assert gates_from_width("w", (5, 5 * gates), 5 * gates, 5) == gates
    with pytest.raises(ValueError, match=r"w: expected .*got 7 \(shape \(5, 7\)\)"):
        gates_from_width("w", (5, 7), 7, 5)


def test_make_cell():
    made = [make_cell(1, 3, jnp.sin), make_cell(3, 3, jnp.sin), make_cell(4, 3, jnp.sin)]
    assert made == [Elman(3, activation=jnp.sin), GRU(3), LSTM(3)]
    assert make_cell(3, 3, jnp.sin, reset_after=False) == GRUResetBefore(3)
    assert make_cell(4, 3, None) == LSTM(3)
    with pytest.raises(ValueError, match="activation: a plain RNN's is not part of its weights"):
        make_cell(1, 3, None)


def test_arrays_go_in_and_out(rng):
    arrays = [rng.normal(size=s).astype("float32") for s in [(2, 9), (3, 9), (9,), (9,)]]
    exported = export_params("params", GRU(3), import_params(*arrays))
    for got, want in zip(exported, arrays, strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, want)
    assert export_params("params", GRUResetBefore(3), import_params(*arrays[:3])).b_h is None


def test_arrays_share_no_memory(rng):
    # Aligned to 64 bytes: such an array's memory is what `jax.device_put` borrows on the CPU.
    raw = rng.normal(size=(5, 4096)).astype("float32")
    offset = -raw.ctypes.data % 64 // 4
    w_x = raw.reshape(-1)[offset : offset + 4 * 4096].reshape(4096, 4)
    params = import_params(w_x, w_x[:4], w_x[0])
    want = w_x.copy()
    w_x[:] = 0
    np.testing.assert_array_equal(params.w_x, want)
    exported = export_params("params", Elman(4), params)
    exported.w_x[:] = 0
    exported.b[:] = 0
    np.testing.assert_array_equal(params.b, want[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"w_x": (2, 11)}, r"^p.w_x: expected shape \(2, 12\) \(of LSTM.*got \(2, 11\)"),
        ({"w_x": ()}, r"^p.w_x: expected shape \(0, 12\).*got \(\)"),
        ({"w_h": (4, 12)}, r"^p.w_h: expected shape \(3, 12\).*got \(4, 12\)"),
        ({"b": (3,)}, r"^p.b: expected shape \(12,\).*got \(3,\)"),
        ({"b_h": (12,)}, r"^p: unknown 'b_h'"),
        ({"extra": (1,)}, r"^p: unknown 'extra'"),
    ],
)
def test_export_checks_arrays(changes, expected):
    with pytest.raises(ValueError, match=expected):
        export_params("p", LSTM(3), lstm_params(**changes))


def test_export_checks_kinds():
    with pytest.raises(ValueError, match="p: missing 'b'; expected exactly: w_x, w_h, b"):
        export_params("p", LSTM(3), lstm_params()._replace(b=None))
    with pytest.raises(TypeError, match=r"cell: expected one of Elman, LSTM, GRU.*, got Child"):
        export_params("p", Child(3), lstm_params())
    with pytest.raises(TypeError, match="p: expected GatedParams, got dict"):
        export_params("p", LSTM(3), lstm_params()._asdict())
    with pytest.raises(TypeError, match=r"p.b: expected an array of floats, got dtype int32"):
        export_params("p", LSTM(3), lstm_params()._replace(b=jnp.ones(12, int)))
