"""Keras' recurrent layers: outputs, states and gradients of golden.npz, and round trips."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore
from seqnets.interop import from_keras, to_keras
from seqnets.recurrence import unroll

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))
CELLS = {"rnn": Elman(5), "lstm": LSTM(5), "gru_after": GRU(5), "gru_before": GRUResetBefore(5)}
EVERY_CASE = pytest.mark.parametrize("case", CELLS)

# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def golden(case, key):
    return GOLDEN[f"keras/{case}/{key}"]


def listed(case, group):
    return [golden(case, f"{group}/{number}") for number in range(3)]


@EVERY_CASE
def test_outputs_states_and_gradients(case):
    cell, params = from_keras(listed(case, "weights"), activation=jnp.tanh)
    assert cell == CELLS[case]
    mask = golden(case, "mask")
    assert (~mask).any(axis=1).sum() == 3  # ragged, a gap, and a row of nothing

    def loss(params, xs):
        carry, ys = unroll(cell, params, None, xs, mask=mask)
        results = {"ys": ys} | {key: state[None] for key, state in carry._asdict().items()}
        pulled = (jnp.sum(x * golden(case, f"pull_{key}")) for key, x in results.items())
        return sum(pulled), results

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_params, by_xs), results = gradient(params, golden(case, "xs"))
    for key, got in results.items():
        np.testing.assert_allclose(got, golden(case, key), err_msg=key, **CLOSE)
    np.testing.assert_allclose(by_xs, golden(case, "gradient_xs"), **CLOSE)
    for got, want in zip(to_keras(cell, by_params), listed(case, "gradients"), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


@EVERY_CASE
def test_round_trip(case):
    weights = listed(case, "weights")
    back = to_keras(*from_keras(weights, activation=jnp.tanh))
    for got, want in zip(back, weights, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_activation_is_that_of_the_simple_rnn():
    cell, _ = from_keras(listed("rnn", "weights"), activation=jax.nn.relu)
    assert cell == Elman(5, activation=jax.nn.relu)
    assert from_keras(listed("lstm", "weights"), activation=jax.nn.relu)[0] == LSTM(5)


# --- mistakes --------------------------------------------------------------------------------


def test_number_of_arrays():
    with pytest.raises(ValueError, match="kernel, recurrent_kernel, bias, got 2 arrays"):
        from_keras(listed("lstm", "weights")[:2])


@pytest.mark.parametrize(
    ("case", "number", "shape", "expected"),
    [
        ("lstm", 0, (20,), r"^kernel: expected shape \[D, G·H\].*got \(20,\)"),
        ("lstm", 0, (3, 19), r"^kernel: expected shape \(3, 20\).*got \(3, 19\)"),
        ("lstm", 1, (20,), r"^recurrent_kernel: expected shape \[H, G·H\].*got \(20,\)"),
        ("lstm", 1, (5, 19), r"^recurrent_kernel: .*5, 15 or 20 .*got 19 \(shape \(5, 19\)\)"),
        ("lstm", 2, (2, 20), r"^bias: expected shape \(20,\).*got \(2, 20\)"),
        ("rnn", 2, (6,), r"^bias: expected shape \(5,\).*got \(6,\)"),
        ("gru_after", 2, (3, 15), r"^bias: .*\(2, 15\) .*with reset_after\), got \(3, 15\)"),
        ("gru_before", 2, (14,), r"^bias: .*\(15,\) .*without reset_after\), got \(14,\)"),
    ],
)
def test_shapes(case, number, shape, expected):
    weights = listed(case, "weights")
    weights[number] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_keras(weights)


def test_integers():
    weights = listed("lstm", "weights")
    weights[2] = np.zeros(20, int)
    with pytest.raises(TypeError, match="bias: expected an array of floats, got dtype int64"):
        from_keras(weights)


def test_export_checks_the_parameters():
    cell, params = from_keras(listed("gru_after", "weights"))
    with pytest.raises(ValueError, match="params: unknown 'b_h'; expected exactly: w_x, w_h, b"):
        to_keras(GRUResetBefore(5), params)
    with pytest.raises(ValueError, match="params: missing 'b_h'"):
        to_keras(cell, params._replace(b_h=None))
    with pytest.raises(ValueError, match=r"params.w_h: .*\(6, 18\).*got \(5, 15\)"):
        to_keras(GRU(6), params._replace(w_x=params.w_h[:, :1].repeat(18, 1), b=jnp.ones(18)))
    with pytest.raises(TypeError, match=r"cell: expected one of Elman, .*got str"):
        to_keras("gru", params)
