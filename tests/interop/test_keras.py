"""Keras' recurrent layers: outputs, states and gradients of golden.npz, and round trips."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore, ProjectedLSTM
from seqnets.interop import (
    from_keras,
    from_keras_bidirectional,
    to_keras,
    to_keras_bidirectional,
)
from seqnets.modules import Bidirectional
from seqnets.recurrence import unroll

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))
CELLS = {
    "rnn": Elman(5),
    "rnn_relu": Elman(5, activation=jax.nn.relu),
    "lstm": LSTM(5),
    "gru_after": GRU(5),
    "gru_before": GRUResetBefore(5),
}
BOTH = {"lstm_both": LSTM(5), "gru_before_both": GRUResetBefore(5)}
EVERY_CELL = pytest.mark.parametrize("case", CELLS)
EVERY_WRAPPER = pytest.mark.parametrize("case", BOTH)

# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def golden(case, key):
    return GOLDEN[f"keras/{case}/{key}"]


def listed(case, group):
    number = 6 if case in BOTH else 3
    return [golden(case, f"{group}/{k}") for k in range(number)]


def gradients(case, run, params):
    """Gradients of golden.py's loss; ``run(params, xs, mask)`` gives its carries and outputs."""
    mask = golden(case, "mask")
    assert (~mask).any(axis=1).sum() == 3  # ragged, a gap, and a row of nothing

    def loss(params, xs):
        carries, ys = run(params, xs, mask)
        states = {k: jnp.stack([getattr(c, k) for c in carries]) for k in carries[0]._fields}
        results = {"ys": ys} | states
        pulled = (jnp.sum(x * golden(case, f"pull_{key}")) for key, x in results.items())
        return sum(pulled), results

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_params, by_xs), results = gradient(params, golden(case, "xs"))
    for key, got in results.items():
        np.testing.assert_allclose(got, golden(case, key), err_msg=key, **CLOSE)
    np.testing.assert_allclose(by_xs, golden(case, "gradient_xs"), **CLOSE)
    return by_params


@EVERY_CELL
def test_outputs_states_and_gradients(case):
    activation = jax.nn.relu if "relu" in case else jnp.tanh
    cell, params = from_keras(listed(case, "weights"), activation=activation)
    assert cell == CELLS[case]

    def run(params, xs, mask):
        carry, ys = unroll(cell, params, None, xs, mask=mask)
        return [carry], ys

    got = to_keras(cell, gradients(case, run, params))
    for by_weight, want in zip(got, listed(case, "gradients"), strict=True):
        np.testing.assert_allclose(by_weight, want, **CLOSE)


@EVERY_WRAPPER
def test_outputs_states_and_gradients_of_both_directions(case):
    module, params = from_keras_bidirectional(listed(case, "weights"))
    assert module == Bidirectional(BOTH[case], BOTH[case])

    def run(params, xs, mask):
        return module.apply({"params": params}, xs, mask=mask)

    got = to_keras_bidirectional(module, gradients(case, run, params))
    for by_weight, want in zip(got, listed(case, "gradients"), strict=True):
        np.testing.assert_allclose(by_weight, want, **CLOSE)


@pytest.mark.parametrize("case", [*CELLS, *BOTH])
def test_round_trip(case):
    weights = listed(case, "weights")
    if case in BOTH:
        back = to_keras_bidirectional(*from_keras_bidirectional(weights))
    else:
        back = to_keras(*from_keras(weights, activation=jnp.tanh))
    for got, want in zip(back, weights, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_activation_is_that_of_the_simple_rnn():
    cell, _ = from_keras(listed("rnn", "weights"), activation=jax.nn.relu)
    assert cell == Elman(5, activation=jax.nn.relu)
    assert from_keras(listed("lstm", "weights"), activation=jax.nn.relu)[0] == LSTM(5)
    both = listed("rnn", "weights") * 2
    module, _ = from_keras_bidirectional(both, activation=jax.nn.relu)
    assert module == Bidirectional(cell, cell)


def test_directions_of_two_kinds():
    weights = listed("lstm", "weights") + listed("gru_after", "weights")
    module, params = from_keras_bidirectional(weights)
    assert module == Bidirectional(LSTM(5), GRU(5))
    assert params["backward"]["cell"].b_h.shape == (15,)
    for got, want in zip(to_keras_bidirectional(module, params), weights, strict=True):
        np.testing.assert_array_equal(got, want)


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, {"kernel": 1, "bias": 2, "recurrent": 3}])
@pytest.mark.parametrize("take", [from_keras, from_keras_bidirectional])
def test_no_list(weights, take):
    with pytest.raises(TypeError, match=r"weights: expected a list of arrays, got (None|dict)"):
        take(weights)


def test_a_simple_rnn_without_its_activation():
    for take, times in ((from_keras, 1), (from_keras_bidirectional, 2)):
        with pytest.raises(ValueError, match="activation: a plain RNN's is not part of its"):
            take(listed("rnn", "weights") * times)


def test_number_of_arrays():
    with pytest.raises(ValueError, match=r"3 \(kernel, recurrent_kernel, bias\), got 2 arrays"):
        from_keras(listed("lstm", "weights")[:2])
    with pytest.raises(ValueError, match=r"weights: expected 6 \(forward kernel, .*, got 3 arrays"):
        from_keras_bidirectional(listed("lstm", "weights"))


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
    with pytest.raises(TypeError, match=r"cell: expected one .*\(Elman, .*got str"):
        to_keras("gru", params)
    projected = ProjectedLSTM(5, hidden=6)
    with pytest.raises(TypeError, match=r"\(Elman, LSTM, GRU, GRUResetBefore\), got ProjectedLS"):
        to_keras(projected, projected.init(jax.random.key(0), 3))


@pytest.mark.parametrize(
    ("number", "shape", "expected"),
    [
        (0, (3, 19), r"^forward kernel: expected shape \(3, 20\).*got \(3, 19\)"),
        (2, (19,), r"^forward bias: expected shape \(20,\).*got \(19,\)"),
        (3, (4, 20), r"^backward kernel: expected shape \(3, 20\).*forward.*got \(4, 20\)"),
        (4, (5, 19), r"^backward recurrent_kernel: .*5, 15 or 20 .*got 19"),
        (5, (2, 20), r"^backward bias: expected shape \(20,\).*got \(2, 20\)"),
    ],
)
def test_shapes_of_both_directions(number, shape, expected):
    weights = listed("lstm_both", "weights")
    weights[number] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_keras_bidirectional(weights)


def test_export_checks_both_directions():
    module, params = from_keras_bidirectional(listed("lstm_both", "weights"))
    with pytest.raises(ValueError, match=r"params: missing 'backward/cell'; expected exactly"):
        to_keras_bidirectional(module, {"forward": params["forward"]})
    with pytest.raises(TypeError, match="params: expected a mapping of arrays, got list"):
        to_keras_bidirectional(module, [params])
    inner = params["backward"]["cell"]
    broken = {**params, "backward": {"cell": inner._replace(w_h=inner.w_h[:4])}}
    with pytest.raises(ValueError, match=r"params\['backward/cell'\].w_h: .*got \(4, 20\)"):
        to_keras_bidirectional(module, broken)
    broken["backward"]["cell"] = inner._replace(w_x=inner.w_x[:2])
    with pytest.raises(ValueError, match=r"backward kernel: expected shape \(3, 20\).*\(2, 20\)"):
        to_keras_bidirectional(module, broken)
    with pytest.raises(TypeError, match="module: expected a Bidirectional, got LSTM"):
        to_keras_bidirectional(LSTM(5), params)
    with pytest.raises(TypeError, match=r"cell: expected one .*got str"):
        to_keras_bidirectional(module.clone(backward_cell="lstm"), params)
