"""Which cells are portable, and the shapes of their arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    Elman,
    GatedParams,
    GRUResetBefore,
    MGUResetAfter,
    ProjectedLSTM,
)
from seqnets.interop.layout import export_params, gates_from_width, import_params, make_cell

ALL = (Elman, LSTM, ProjectedLSTM, GRU, GRUResetBefore)


class Child(LSTM):
    """A cell with the parameters of an LSTM and perhaps other equations."""


def lstm_params(**changes):
    arrays = {"w_x": (2, 12), "w_h": (3, 12), "b": (12,)} | changes
    return GatedParams(**{key: jnp.ones(shape) for key, shape in arrays.items()})


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_gates_from_width(gates):
    assert gates_from_width("w", (5, 5 * gates), 5 * gates, 5) == gates
    with pytest.raises(ValueError, match=r"w: expected .*got 7 \(shape \(5, 7\)\)"):
        gates_from_width("w", (5, 7), 7, 5)
    with pytest.raises(ValueError, match=r"w: expected gates .* 5, 15, or 20 .*got 10"):
        gates_from_width("w", (5, 10), 10, 5)  # two gates are an MGU, which only Flax has


def test_make_cell():
    made = [make_cell(1, 3, jnp.sin), make_cell(3, 3, jnp.sin), make_cell(4, 3, jnp.sin)]
    assert made == [Elman(3, activation=jnp.sin), GRU(3), LSTM(3)]
    assert make_cell(3, 3, jnp.sin, reset_after=False) == GRUResetBefore(3)
    assert make_cell(4, 3, None) == LSTM(3)
    assert make_cell(2, 3, None) == MGUResetAfter(3)
    with pytest.raises(ValueError, match="activation: expected that of the plain RNN"):
        make_cell(1, 3, None)


def test_arrays_go_in_and_out(rng):
    arrays = [rng.normal(size=s).astype("float32") for s in [(2, 9), (3, 9), (9,), (9,)]]
    exported = export_params("params", GRU(3), import_params(*arrays), ALL)
    assert exported.w_p is None
    exported = exported[:4]
    for got, want in zip(exported, arrays, strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, want)
    before = export_params("params", GRUResetBefore(3), import_params(*arrays[:3]), ALL)
    assert before.b_h is None


def test_a_projection_goes_in_and_out(rng):
    shapes = {"w_x": (2, 12), "w_h": (5, 12), "b": (12,), "w_p": (3, 5)}
    arrays = {key: rng.normal(size=shape).astype("float32") for key, shape in shapes.items()}
    cell = ProjectedLSTM(5, hidden=3)
    params = import_params(**arrays)
    exported = export_params("params", cell, params, ALL)
    assert exported.b_h is None
    for key, want in arrays.items():
        np.testing.assert_array_equal(getattr(exported, key), want)
    expected = r"p.w_p: expected shape \(3, 5\) \(of ProjectedLSTM\(5, hidden=3\)\), got \(5, 3\)"
    with pytest.raises(ValueError, match=expected):
        export_params("p", cell, params._replace(w_p=params.w_p.T), ALL)
    with pytest.raises(ValueError, match="p: missing 'w_p'"):
        export_params("p", cell, params._replace(w_p=None), ALL)


def test_arrays_share_no_memory(rng):
    # Aligned to 64 bytes: such an array's memory is what `jax.device_put` borrows on the CPU.
    raw = rng.normal(size=(5, 4096)).astype("float32")
    offset = -raw.ctypes.data % 64 // 4
    w_x = raw.reshape(-1)[offset : offset + 4 * 4096].reshape(4096, 4)
    params = import_params(w_x, w_x[:4], w_x[0])
    want = w_x.copy()
    w_x[:] = 0
    np.testing.assert_array_equal(params.w_x, want)
    exported = export_params("params", Elman(4), params, ALL)
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
        ({"w_p": (1,)}, r"^p: unknown 'w_p'"),
    ],
)
def test_export_checks_arrays(changes, expected):
    with pytest.raises(ValueError, match=expected):
        export_params("p", LSTM(3), lstm_params(**changes), ALL)


def test_export_checks_kinds():
    with pytest.raises(ValueError, match="p: missing 'b'; expected exactly: w_x, w_h, b"):
        export_params("p", LSTM(3), lstm_params()._replace(b=None), ALL)
    with pytest.raises(TypeError, match=r"cell: expected one .*\(Elman, LSTM, .*\), got Child"):
        export_params("p", Child(3), lstm_params(), ALL)
    with pytest.raises(TypeError, match=r"cell: expected one .*\(Elman, GRU\), got LSTM"):
        export_params("p", LSTM(3), lstm_params(), (Elman, GRU))
    with pytest.raises(TypeError, match="p: expected GatedParams, got dict"):
        export_params("p", LSTM(3), lstm_params()._asdict(), ALL)
    with pytest.raises(TypeError, match=r"p.b: expected an array of floats, got dtype int32"):
        export_params("p", LSTM(3), lstm_params()._replace(b=jnp.ones(12, int)), ALL)
