"""Flax's ConvLSTMCell, run beside ours, and Keras' layers of golden.npz; round trips."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CLOSE, gradients, listed, stacked

from seqnets.cells import LSTM, ConvLSTM
from seqnets.interop import (
    from_flax_conv_lstm,
    from_keras_conv_lstm,
    to_flax_conv_lstm,
    to_keras_conv_lstm,
)
from seqnets.recurrence import lengths_to_mask, unroll

B, T, D, H = 3, 4, 2, 3
LENGTHS = np.array([4, 2, 1])  # Flax's RNN has no row of length 0
SIZES = {1: ((5,), (3,)), 2: ((4, 5), (3, 2)), 3: ((2, 3, 4), (1, 2, 3))}
EVERY_SIZE = pytest.mark.parametrize("axes", SIZES)

# Keras' cases of golden.npz: the cell, and whether it has a bias.
KERAS = {
    "conv_lstm": (ConvLSTM(2, image=(3, 4), kernel=(3, 2)), True),
    "conv_lstm_unbiased": (ConvLSTM(2, image=(3,), kernel=(2,)), False),
}


def draw(axes, rng, **options):
    """Random parameters of the shapes of `init`, biases too."""
    image, kernel = SIZES[axes]
    cell = nn.ConvLSTMCell(H, kernel, **options)
    xs = jnp.zeros((B, *image, D))
    carry = cell.initialize_carry(jax.random.key(0), xs.shape)
    like = jax.eval_shape(cell.init, jax.random.key(0), carry, xs)["params"]
    return cell, jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), like)


def reordered(array):
    """Gates i, g, f, o of Flax as ours lie, by a table of columns."""
    columns = np.arange(4 * H).reshape(4, H)[[0, 2, 1, 3]].reshape(-1)
    return array[..., columns]


@EVERY_SIZE
def test_outputs_states_and_gradients(axes, rng):
    flax_cell, params = draw(axes, rng)
    image, kernel = SIZES[axes]
    cell, ours = from_flax_conv_lstm(params, image=image)
    assert cell == ConvLSTM(H, image=image, kernel=kernel)
    xs = jnp.asarray(rng.normal(size=(B, T, *image, D)), "float32")
    pull_ys = rng.normal(size=(B, T, *image, H)).astype("float32")
    pull_c, pull_h = rng.normal(size=(2, B, *image, H)).astype("float32")
    mask = np.array(lengths_to_mask(LENGTHS, T))
    visible = mask.reshape(B, T, *[1] * (axes + 1))

    def loss_of(ys, c, h):
        ys = jnp.where(visible, ys, 0)
        return jnp.sum(ys * pull_ys) + jnp.sum(c * pull_c) + jnp.sum(h * pull_h), (ys, c, h)

    def theirs(params, xs):
        layer = nn.RNN(flax_cell, return_carry=True)
        (c, h), ys = layer.apply({"params": {"cell": params}}, xs, seq_lengths=LENGTHS)
        return loss_of(ys, c, h)

    def loss(ours, xs):
        carry, ys = unroll(cell, ours, None, xs, mask=mask)
        return loss_of(ys, carry.c, carry.h)

    grad = lambda f: jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))  # noqa: E731
    (want, want_xs), want_results = grad(theirs)(params, xs)
    (got, got_xs), results = grad(loss)(ours, xs)
    for result, want_result in zip(results, want_results, strict=True):
        np.testing.assert_allclose(result, want_result, **CLOSE)
    np.testing.assert_allclose(got_xs, want_xs, **CLOSE)
    np.testing.assert_allclose(got.w_x, reordered(want["ih"]["kernel"]), **CLOSE)
    np.testing.assert_allclose(got.w_h, reordered(want["hh"]["kernel"]), **CLOSE)
    for side in ("ih", "hh"):  # both biases of a sum have its gradient
        np.testing.assert_allclose(got.b, reordered(want[side]["bias"]), **CLOSE)


@EVERY_SIZE
def test_round_trip(axes, rng):
    _, params = draw(axes, rng)
    cell, ours = from_flax_conv_lstm(params, image=SIZES[axes][0])
    back = to_flax_conv_lstm(cell, ours)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for side in ("ih", "hh"):
        np.testing.assert_array_equal(back[side]["kernel"], params[side]["kernel"])
    summed = params["ih"]["bias"] + params["hh"]["bias"]
    # The 1 of the forget gate costs the last bits of numbers below 1.
    np.testing.assert_allclose(back["ih"]["bias"], summed, rtol=0, atol=2e-7)
    assert not back["hh"]["bias"].any()
    like = cell.init(jax.random.key(0), D)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, like)


def test_a_flax_cell_without_biases(rng):
    flax_cell, params = draw(1, rng, use_bias=False)
    cell, ours = from_flax_conv_lstm(params, image=(5,))
    np.testing.assert_array_equal(ours.b, np.repeat([0, 1, 0, 0], H).astype("float32"))
    xs = jnp.asarray(rng.normal(size=(B, T, 5, D)), "float32")
    want = nn.RNN(flax_cell).apply({"params": {"cell": params}}, xs)
    chex.assert_trees_all_close(unroll(cell, ours, None, xs)[1], want, **CLOSE)
    chex.assert_trees_all_equal(to_flax_conv_lstm(cell, ours, bias=False), params)
    with pytest.raises(ValueError, match=r"^params.b, less 1 for the forget gate: expected zeros"):
        to_flax_conv_lstm(cell, ours._replace(b=jnp.zeros(4 * H)), bias=False)


@pytest.mark.parametrize("case", KERAS)
def test_outputs_states_and_gradients_of_keras(case):
    expected, _ = KERAS[case]
    weights = listed(case, "weights")
    cell, params = from_keras_conv_lstm(weights, image=expected.image)
    assert cell == expected

    def run(params, xs, mask):
        carry, ys = unroll(cell, params, None, xs, mask=mask)
        return {"ys": ys, **stacked([carry])}

    by_weights = to_keras_conv_lstm(cell, gradients(f"keras/{case}", run, params))
    chex.assert_trees_all_close(by_weights[: len(weights)], listed(case, "gradients"), **CLOSE)


@pytest.mark.parametrize("case", KERAS)
def test_round_trip_of_keras(case):
    (expected, biased), weights = KERAS[case], listed(case, "weights")
    cell, params = from_keras_conv_lstm(weights, image=expected.image)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, cell.init(jax.random.key(0), 3))
    chex.assert_trees_all_equal(to_keras_conv_lstm(cell, params, bias=biased), weights)


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "leaf", "shape", "expected"),
    [
        ("ih", "kernel", (3, D, 12), r"ih/kernel: expected shape \[Y, X, D, 4·H\].*got \(3, 2,"),
        ("hh", "kernel", (3, 2, 12), r"hh/kernel: expected shape \[Y, X, H, 4·H\].*got \(3, 2,"),
        ("hh", "kernel", (3, 2, H, 11), r"hh/kernel: expected shape \(3, 2, 3, 12\).*11\)"),
        ("ih", "kernel", (2, 2, D, 12), r"ih/kernel: expected shape \(3, 2, 2, 12\).*got \(2, "),
        ("ih", "kernel", (3, 2, D, 9), r"ih/kernel: expected shape \(3, 2, 2, 12\).*9\)"),
        ("ih", "bias", (H,), r"ih/bias: expected shape \(12,\).*got \(3,\)"),
        ("hh", "bias", (1, 12), r"hh/bias: expected shape \(12,\).*got \(1, 12\)"),
    ],
)
def test_shapes(side, leaf, shape, expected, rng):
    _, params = draw(2, rng)
    params[side][leaf] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_flax_conv_lstm(params, image=(4, 5))


def test_axes_of_the_image(rng):
    _, params = draw(2, rng)
    for image in ((), (4, 5, 6, 7)):
        with pytest.raises(ValueError, match=r"image: expected a size for each of 1 to 3 axes"):
            from_flax_conv_lstm(params, image=image)
    with pytest.raises(ValueError, match=r"ih/kernel: expected shape \[X, D, 4·H\].*got \(3, 2, 2"):
        from_flax_conv_lstm(params, image=(4,))


def test_keys_and_kinds(rng):
    _, params = draw(1, rng)
    bias = params["hh"].pop("bias")
    with pytest.raises(ValueError, match="params: missing 'hh/bias'; unknown 'fc'"):
        from_flax_conv_lstm({**params, "fc": bias}, image=(5,))
    params["hh"]["bias"] = bias.astype(int)
    with pytest.raises(TypeError, match="hh/bias: expected an array of floats, got dtype int"):
        from_flax_conv_lstm(params, image=(5,))
    with pytest.raises(TypeError, match="params: expected a mapping of arrays, got list"):
        from_flax_conv_lstm([params], image=(5,))


@pytest.mark.parametrize("key", ["w_x", "w_h", "b"])
def test_export_checks_arrays(key, rng):
    cell = ConvLSTM(H, image=(5,), kernel=(3,))
    params = cell.init(jax.random.key(0), D)
    array = getattr(params, key)
    for wrong in (array[:-1], array[..., :-1], array[0]):
        with pytest.raises(ValueError, match=rf"params.{key}: expected shape \(.*\(of ConvLSTM\(3"):
            to_flax_conv_lstm(cell, params._replace(**{key: wrong}))
    with pytest.raises(TypeError, match=rf"params.{key}: expected an array of floats"):
        to_flax_conv_lstm(cell, params._replace(**{key: array.astype(int)}))


def test_export_checks_kinds():
    cell = ConvLSTM(H, image=(5,), kernel=(3,))
    with pytest.raises(TypeError, match="cell: expected a ConvLSTM, got LSTM"):
        to_flax_conv_lstm(LSTM(H), cell.init(jax.random.key(0), D))
    with pytest.raises(TypeError, match="params: expected ConvLSTMParams, got GatedParams"):
        to_flax_conv_lstm(cell, LSTM(H).init(jax.random.key(0), D))


@pytest.mark.parametrize(
    ("number", "shape", "expected"),
    [
        (0, (3, 2, 8), r"^kernel: expected shape \[Y, X, D, 4·H\].*got \(3, 2, 8\)"),
        (0, (2, 2, 3, 8), r"^kernel: expected shape \(3, 2, 3, 8\).*got \(2, 2, 3, 8\)"),
        (1, (3, 2, 2, 7), r"^recurrent_kernel: expected shape \(3, 2, 2, 8\).*got \(3, 2, 2, 7\)"),
        (2, (7,), r"^bias: expected shape \(8,\).*got \(7,\)"),
    ],
)
def test_shapes_of_keras(number, shape, expected):
    weights = listed("conv_lstm", "weights")
    weights[number] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_keras_conv_lstm(weights, image=(3, 4))


def test_keras_lists_and_biases():
    weights = listed("conv_lstm", "weights")
    with pytest.raises(ValueError, match=r"^weights: expected 3 .* or 2 .*, got 1 arrays"):
        from_keras_conv_lstm(weights[:1], image=(3, 4))
    with pytest.raises(ValueError, match=r"^kernel: expected shape \[X, D, 4·H\] \(3 axes\)"):
        from_keras_conv_lstm(weights, image=(3,))
    cell, params = from_keras_conv_lstm(weights, image=(3, 4))
    with pytest.raises(ValueError, match=r"^params.b: expected zeros, since the target"):
        to_keras_conv_lstm(cell, params, bias=False)
    with pytest.raises(TypeError, match=r"^cell: expected a ConvLSTM, got LSTM"):
        to_keras_conv_lstm(LSTM(H), params)
