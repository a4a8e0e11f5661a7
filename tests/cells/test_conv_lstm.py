"""The convolutional LSTM against Flax's cell, and against the LSTM where an image is a point."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import LSTM, ConvLSTM, ConvLSTMCarry, ConvLSTMParams, GatedParams, LSTMCarry

D, H = 2, 3


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), "float32")


@pytest.mark.parametrize(
    ("image", "kernel"), [((5,), (3,)), ((4, 5), (3, 2)), ((2, 3, 2), (1, 2, 3))]
)
def test_equals_flax(image, kernel, rng):
    """Flax lays the gates in the order i, g, f, o and adds 1 to f."""
    x, c, h = draw(rng, 2, *image, D), draw(rng, 2, *image, H), draw(rng, 2, *image, H)
    shapes = {"ih": (*kernel, D, 4 * H), "hh": (*kernel, H, 4 * H)}
    weights = {
        name: {"kernel": draw(rng, *shape), "bias": draw(rng, 4 * H)}
        for name, shape in shapes.items()
    }
    theirs = nn.ConvLSTMCell(H, kernel_size=kernel)
    (want_c, want_h), _ = theirs.apply({"params": weights}, (c, h), x)

    def reordered(a):
        i, g, f, o = jnp.split(a, 4, axis=-1)
        return jnp.concatenate([i, f, g, o], axis=-1)

    bias = reordered(weights["ih"]["bias"] + weights["hh"]["bias"])
    params = ConvLSTMParams(
        w_x=reordered(weights["ih"]["kernel"]),
        w_h=reordered(weights["hh"]["kernel"]),
        b=bias.at[H : 2 * H].add(1),
    )
    carry, y = ConvLSTM(H, image, kernel).step(params, ConvLSTMCarry(c, h), x)
    np.testing.assert_allclose(carry.c, want_c, atol=1e-5)  # sums of some ten float32 terms
    np.testing.assert_allclose(y, want_h, atol=1e-5)
    np.testing.assert_array_equal(carry.h, y)


def test_a_point_is_an_lstm(rng):
    x, c, h = draw(rng, 4, D), draw(rng, 4, H), draw(rng, 4, H)
    plain = GatedParams(draw(rng, D, 4 * H), draw(rng, H, 4 * H), draw(rng, 4 * H))
    params = ConvLSTMParams(plain.w_x[None], plain.w_h[None], plain.b)
    carry = ConvLSTMCarry(c[:, None], h[:, None])
    _, y = ConvLSTM(H, (1,), (1,)).step(params, carry, x[:, None])
    want = LSTM(H).step(plain, LSTMCarry(c, h), x)[1]
    np.testing.assert_allclose(y[:, 0], want, atol=1e-6)


def test_inputs_of_all_steps_at_once(rng):
    cell = ConvLSTM(H, (4,), (3,))
    params, xs = cell.init(jax.random.key(0), D), draw(rng, 6, 2, 4, D)
    at_once = cell.prepare(params, xs)
    assert at_once.shape == (6, 2, 4, 4 * H)
    np.testing.assert_allclose(at_once[3], cell.prepare(params, xs[3]), atol=1e-6)


def test_init():
    params = ConvLSTM(H, (8, 8), (3, 2), forget_bias=0.5).init(jax.random.key(0), D)
    assert [leaf.shape for leaf in params] == [(3, 2, D, 4 * H), (3, 2, H, 4 * H), (4 * H,)]
    assert {leaf.dtype.name for leaf in params} == {"float32"}
    np.testing.assert_array_equal(params.b, np.repeat([0, 0.5, 0, 0], H))
    limit = np.sqrt(6 / (6 * (D + H)))  # of one gate's block, a kernel of six points
    assert 0.9 * limit < abs(params.w_x).max() <= limit
    for block in np.split(np.asarray(params.w_h), 4, axis=-1):
        columns = block.reshape(-1, H)
        np.testing.assert_allclose(columns.T @ columns, np.eye(H), atol=1e-5)  # float32 QR


def test_rejects():
    with pytest.raises(ValueError, match=r"image: expected a value in \[1, inf\], got 0"):
        ConvLSTM(H, (4, 0), (3, 3))
    with pytest.raises(ValueError, match=r"kernel: expected a value in \[1, inf\], got -1"):
        ConvLSTM(H, (4, 4), (3, -1))
    for image, kernel in (((4, 4), (3,)), ((), ())):
        with pytest.raises(ValueError, match=r"kernel: expected one size for each axis"):
            ConvLSTM(H, image, kernel)
    cell = ConvLSTM(H, (4,), (3,))
    with pytest.raises(ValueError, match=r"in_features: .* got 0"):
        cell.init(jax.random.key(0), 0)
    params = cell.init(jax.random.key(0), D)
    carry = cell.initial_carry(params, 2, "float32")
    for shape in ((2, 5, D), (2, 4, D + 1)):
        with pytest.raises(ValueError, match=r"xs: expected shape .*image of the cell"):
            cell.step(params, carry, jnp.ones(shape))
    for shape in ((D,), (2, 4, 4, D)):
        with pytest.raises(ValueError, match=r"x: expected shape \[B, I, D\] \(3 axes\), got"):
            cell.step(params, carry, jnp.ones(shape))
