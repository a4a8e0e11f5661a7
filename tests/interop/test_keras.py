"""Keras' recurrent layers: outputs, states and gradients of golden.npz, and round trips."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CLOSE, gradients, listed, stacked

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore, ProjectedLSTM
from seqnets.interop import from_keras, to_keras
from seqnets.recurrence import unroll

CELLS = {
    "rnn": Elman(5),
    "rnn_relu": Elman(5, activation=jax.nn.relu),
    "lstm": LSTM(5),
    "gru_after": GRU(5),
    "gru_before": GRUResetBefore(5),
    "lstm_unbiased": LSTM(5),
    "gru_after_unbiased": GRU(5),
}
EVERY_CELL = pytest.mark.parametrize("case", CELLS)


def imported(case):
    """`from_keras`, with what the weights do not know."""
    unknown = {"gru_after_unbiased": True}
    activation = jax.nn.relu if "relu" in case else jnp.tanh
    return from_keras(listed(case, "weights"), activation=activation, reset_after=unknown.get(case))


@EVERY_CELL
def test_outputs_states_and_gradients(case):
    cell, params = imported(case)
    assert cell == CELLS[case]

    def run(params, xs, mask):
        assert (~mask).any(axis=1).sum() == 3  # ragged, a gap, and a row of nothing
        carry, ys = unroll(cell, params, None, xs, mask=mask)
        return {"ys": ys, **stacked([carry])}

    got = to_keras(cell, gradients(f"keras/{case}", run, params))
    expected = listed(case, "gradients")
    chex.assert_trees_all_close(got[: len(expected)], expected, **CLOSE)


@EVERY_CELL
def test_round_trip(case):
    weights = listed(case, "weights")
    back = to_keras(*imported(case), bias="unbiased" not in case)
    chex.assert_trees_all_equal(back, weights)
    chex.assert_trees_all_equal_dtypes(back, weights)


@pytest.mark.parametrize("reset_after", [True, False])
def test_absent_biases_are_zeros(reset_after):
    weights = listed("gru_after_unbiased", "weights")
    cell, params = from_keras(weights, reset_after=reset_after)
    assert cell == (GRU(5) if reset_after else GRUResetBefore(5))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, cell.init(jax.random.key(0), 3))
    bias = to_keras(cell, params)[2]
    np.testing.assert_array_equal(bias, np.zeros((2, 15) if reset_after else 15, "float32"))
    chex.assert_trees_all_equal(from_keras([*weights, bias]), (cell, params))


def test_activation_is_that_of_the_simple_rnn():
    cell, _ = from_keras(listed("rnn", "weights"), activation=jax.nn.relu)
    assert cell == Elman(5, activation=jax.nn.relu)
    assert from_keras(listed("lstm", "weights"), activation=jax.nn.relu)[0] == LSTM(5)


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, {"kernel": 1, "bias": 2, "recurrent": 3}])
def test_no_list(weights):
    with pytest.raises(TypeError, match=r"weights: expected a list of arrays, got (None|dict)"):
        from_keras(weights)


def test_a_simple_rnn_without_its_activation():
    with pytest.raises(ValueError, match="activation: expected that of the plain RNN"):
        from_keras(listed("rnn", "weights"))


def test_number_of_arrays():
    weights = listed("lstm", "weights")
    expected = r"3 \(kernel, recurrent_kernel, bias\), or 2 without a bias, got {} arrays"
    for number in (1, 4):
        with pytest.raises(ValueError, match=expected.format(number)):
            from_keras([*weights, *weights][:number])


def test_a_gru_without_biases_does_not_say_where_it_resets():
    with pytest.raises(ValueError, match=r"^reset_after: expected True .* biases, got None"):
        from_keras(listed("gru_after_unbiased", "weights"))
    with pytest.raises(ValueError, match=r"^bias: expected shape \(15,\).*without reset_after"):
        from_keras(listed("gru_after", "weights"), reset_after=False)


@pytest.mark.parametrize("field", ["b", "b_h"])
def test_a_bias_without_a_place_is_named(field):
    cell, params = imported("gru_after_unbiased")
    params = params._replace(**{field: params.b.at[2].set(0.5)})
    with pytest.raises(ValueError, match=rf"^params.{field}: expected zeros.* up to 0.5$"):
        to_keras(cell, params, bias=False)


@pytest.mark.parametrize(
    ("case", "number", "shape", "expected"),
    [
        ("lstm", 0, (20,), r"^kernel: expected shape \[D, G·H\].*got \(20,\)"),
        ("lstm", 0, (3, 19), r"^kernel: expected shape \(3, 20\).*got \(3, 19\)"),
        ("lstm", 1, (20,), r"^recurrent_kernel: expected shape \[H, G·H\].*got \(20,\)"),
        ("lstm", 1, (5, 19), r"^recurrent_kernel: .*5, 15, or 20 .*got 19 \(shape \(5, 19\)\)"),
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
