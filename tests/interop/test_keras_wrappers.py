"""Keras' Bidirectional and StackedRNNCells: golden.npz, and round trips."""

import chex
import jax
import numpy as np
import pytest
from golden_cases import CLOSE, gradients, listed, stacked

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore
from seqnets.interop import (
    from_keras_bidirectional,
    from_keras_stacked,
    to_keras_bidirectional,
    to_keras_stacked,
)
from seqnets.modules import Bidirectional, Layer, Stack
from seqnets.recurrence import Regularization

BOTH = {
    "lstm_both": LSTM(5),
    "gru_before_both": GRUResetBefore(5),
    "gru_before_unbiased_both": GRUResetBefore(5),
}
EVERY_WRAPPER = pytest.mark.parametrize("case", BOTH)
WEIGHTS = [listed("stacked", "weights")[:3], listed("stacked", "weights")[3:]]


def imported(case):
    unknown = {"gru_before_unbiased_both": False}
    return from_keras_bidirectional(listed(case, "weights"), reset_after=unknown.get(case))


@EVERY_WRAPPER
def test_outputs_states_and_gradients_of_both_directions(case):
    module, params = imported(case)
    assert module == Bidirectional(BOTH[case], BOTH[case])

    def run(params, xs, mask):
        carries, ys = module.apply({"params": params}, xs, mask=mask)
        return {"ys": ys, **stacked(carries)}

    biased = "unbiased" not in case
    got = to_keras_bidirectional(module, gradients(f"keras/{case}", run, params))
    got = got if biased else got[:2] + got[3:5]
    chex.assert_trees_all_close(got, listed(case, "gradients"), **CLOSE)


@EVERY_WRAPPER
def test_round_trip_of_both_directions(case):
    back = to_keras_bidirectional(*imported(case), bias="unbiased" not in case)
    chex.assert_trees_all_equal(back, listed(case, "weights"))


def test_directions_of_two_kinds():
    weights = listed("lstm", "weights") + listed("gru_after", "weights")
    module, params = from_keras_bidirectional(weights)
    assert module == Bidirectional(LSTM(5), GRU(5))
    assert params["backward"]["cell"].b_h.shape == (15,)
    for got, want in zip(to_keras_bidirectional(module, params), weights, strict=True):
        np.testing.assert_array_equal(got, want)


def test_activation_is_that_of_both_directions():
    module, _ = from_keras_bidirectional(listed("rnn", "weights") * 2, activation=jax.nn.relu)
    assert module == Bidirectional(*[Elman(5, activation=jax.nn.relu)] * 2)


def test_outputs_states_and_gradients_of_a_stack():
    stack, params = from_keras_stacked(WEIGHTS)
    assert stack == Stack((LSTM(5), GRU(4)))

    def run(params, xs, mask):
        (lower, upper), ys = stack.apply({"params": params}, xs, mask=mask)
        return {"ys": ys, "h0": lower.h, "c0": lower.c, "h1": upper.h}

    got = to_keras_stacked(stack, gradients("keras/stacked", run, params))
    chex.assert_trees_all_close(got[0] + got[1], listed("stacked", "gradients"), **CLOSE)


def test_round_trip_of_a_stack():
    chex.assert_trees_all_equal(to_keras_stacked(*from_keras_stacked(WEIGHTS)), WEIGHTS)
    without = [kernels[:2] for kernels in WEIGHTS]
    stack, params = from_keras_stacked(without, reset_after=True)
    assert stack == Stack((LSTM(5), GRU(4)))
    chex.assert_trees_all_equal(to_keras_stacked(stack, params, bias=False), without)


# --- mistakes --------------------------------------------------------------------------------


def test_no_list():
    for weights in (None, {"kernel": 1}):
        with pytest.raises(TypeError, match=r"weights: expected a list of arrays, got (None|dict)"):
            from_keras_bidirectional(weights)


def test_what_the_weights_do_not_say():
    with pytest.raises(ValueError, match="activation: expected that of the plain RNN"):
        from_keras_bidirectional(listed("rnn", "weights") * 2)
    with pytest.raises(ValueError, match=r"reset_after: expected True .* GRU without biases"):
        from_keras_bidirectional(listed("gru_before_unbiased_both", "weights"))


def test_number_of_arrays():
    expected = r"weights: expected 6 \(forward kernel, .*, or 4 without a bias, got {} arrays"
    for number in (3, 5):
        with pytest.raises(ValueError, match=expected.format(number)):
            from_keras_bidirectional(listed("lstm_both", "weights")[:number])


@pytest.mark.parametrize(
    ("number", "shape", "expected"),
    [
        (0, (3, 19), r"^forward kernel: expected shape \(3, 20\).*got \(3, 19\)"),
        (2, (19,), r"^forward bias: expected shape \(20,\).*got \(19,\)"),
        (3, (4, 20), r"^backward kernel: expected shape \(3, 20\).*forward.*got \(4, 20\)"),
        (4, (5, 19), r"^backward recurrent_kernel: .*5, 15, or 20 .*got 19"),
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


def test_export_refuses_biases_and_zoneout_in_both_directions():
    module, params = imported("gru_before_unbiased_both")
    inner = params["backward"]["cell"]
    biased = {**params, "backward": {"cell": inner._replace(b=inner.b.at[0].set(1))}}
    with pytest.raises(ValueError, match=r"^params\['backward/cell'\].b: expected zeros"):
        to_keras_bidirectional(module, biased, bias=False)
    zoned = module.clone(regularization=Regularization(zoneout=0.1))
    with pytest.raises(ValueError, match=r"^module: expected no zoneout.*got 0.1"):
        to_keras_bidirectional(zoned, params)


def test_a_stack_is_given_as_one_list_a_layer():
    for weights in (None, WEIGHTS[0] + WEIGHTS[1]):
        with pytest.raises(
            TypeError, match=r"^weights: expected a list for each layer, \[cell.get"
        ):
            from_keras_stacked(weights)
    with pytest.raises(ValueError, match=r"^weights: expected at least one layer, got none"):
        from_keras_stacked([])
    with pytest.raises(ValueError, match=r"^weights\[1\]: expected 3 .*, got 4 arrays"):
        from_keras_stacked([WEIGHTS[0], WEIGHTS[1] + WEIGHTS[1][:1]])


def test_shapes_of_a_stack():
    with pytest.raises(ValueError, match=r"^layer 1 kernel: expected shape \(5, 20\).*\(3, 20\)"):
        from_keras_stacked([WEIGHTS[0], WEIGHTS[0]])
    kernel, recurrent, bias = WEIGHTS[1]
    with pytest.raises(ValueError, match=r"^layer 1 bias: expected shape \(2, 12\).*\(2, 11\)"):
        from_keras_stacked([WEIGHTS[0], [kernel, recurrent, bias[:, :11]]])


def test_what_a_stack_of_keras_lacks():
    stack, params = from_keras_stacked(WEIGHTS)
    with pytest.raises(ValueError, match=r"^stack: expected no residual connections"):
        to_keras_stacked(stack.clone(residual=True), params)
    with pytest.raises(ValueError, match=r"^stack: expected layers in one direction"):
        to_keras_stacked(stack.clone(bidirectional=True), params)
    with pytest.raises(TypeError, match=r"^stack: expected a Stack, got LSTM"):
        to_keras_stacked(LSTM(5), params)
    layers = (LSTM(5), Layer(GRU(4), Regularization(zoneout=(("h", 0.2),))))
    with pytest.raises(ValueError, match=r"^stack.layers\[1\]: expected no zoneout"):
        to_keras_stacked(stack.clone(layers=layers), params)
    with pytest.raises(ValueError, match=r"^params: missing 'layer_1/cell'"):
        to_keras_stacked(stack, {"layer_0": params["layer_0"]})
    with pytest.raises(ValueError, match=r"^params\['layer_0/cell'\].b: expected zeros"):
        to_keras_stacked(stack, params, bias=False)
