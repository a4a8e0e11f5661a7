"""Layer normalization: Flax's norm as oracle, what it must not notice, and the parameters."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRUCarry, LayerNormGRU, LayerNormLSTM, LSTMCarry
from seqnets.initializers import Initialization

H = 5


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), "float32")


def normal(z):
    return nn.LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False).apply({}, z)


def random_norms(rng, cell):
    """Parameters whose scales and shifts are drawn too."""
    params = cell.init(jax.random.key(0), 3)
    return params._replace(extra=jax.tree.map(lambda a: draw(rng, *a.shape), params.extra))


def test_lstm_with_the_norm_of_flax(rng):
    params = random_norms(rng, LayerNormLSTM(H))
    x, c, h = draw(rng, 4, 3), draw(rng, 4, H), draw(rng, 4, H)
    e = jax.tree.map(lambda a: a[None], params.extra)
    z = e.scale_x * normal(x @ params.w_x) + e.scale_h * normal(h @ params.w_h) + e.b
    i, f, g, o = jnp.split(z, 4, -1)
    want_c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    want = nn.sigmoid(o) * jnp.tanh(e.scale_c * normal(want_c) + e.b_c)
    carry, y = LayerNormLSTM(H).step(params, LSTMCarry(c, h), x)
    np.testing.assert_allclose(carry.c, want_c, atol=1e-5)
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_array_equal(carry.h, y)


@pytest.mark.parametrize("which", ["w_x", "w_h"])
@pytest.mark.parametrize("kind", [LayerNormLSTM, LayerNormGRU])
def test_the_scale_of_either_product_does_not_matter(kind, which, rng):
    """Both products are normalized apart: were their sum, scaling one would show."""
    cell = kind(H)
    params = random_norms(rng, cell)
    # Products far above √ε = 0.003, which alone would notice.
    params = params._replace(w_x=30 * params.w_x, w_h=30 * params.w_h)
    x = draw(rng, 4, 3)
    carry = jax.tree.map(lambda a: draw(rng, *a.shape), cell.initial_carry(params, 4, "float32"))
    step = jax.jit(cell.step)
    want = step(params, carry, x)
    got = step(params._replace(**{which: 7 * getattr(params, which)}), carry, x)
    chex.assert_trees_all_close(got, want, atol=1e-4)
    shifted = params._replace(**{which: jnp.flip(getattr(params, which), -1)})
    assert abs(step(shifted, carry, x)[1] - want[1]).max() > 0.1  # the weight itself does


def test_gru_with_the_norm_of_flax(rng):
    params = random_norms(rng, LayerNormGRU(H))
    x, h = draw(rng, 4, 3), draw(rng, 4, H)
    e = jax.tree.map(lambda a: a[None], params.extra)
    z_x, z_h, G = x @ params.w_x, h @ params.w_h, 2 * H
    gates = e.scale_x[:, :G] * normal(z_x[:, :G]) + e.scale_h[:, :G] * normal(z_h[:, :G])
    r, z = jnp.split(nn.sigmoid(gates + e.b[:, :G]), 2, -1)
    n_h = e.scale_h[:, G:] * normal(z_h[:, G:]) + e.b_hn
    n = jnp.tanh(e.scale_x[:, G:] * normal(z_x[:, G:]) + e.b[:, G:] + r * n_h)
    carry, y = LayerNormGRU(H).step(params, GRUCarry(h), x)
    np.testing.assert_allclose(y, (1 - z) * n + z * h, atol=1e-5)
    np.testing.assert_array_equal(carry.h, y)


def test_statistics_are_those_of_float32(rng):
    """In bfloat16 a mean of 100 would drown deviations of 1/4."""
    cell, x = LayerNormLSTM(H), jnp.ones((4, 1), "bfloat16")
    params = jax.tree.map(lambda a: a.astype("bfloat16"), cell.init(jax.random.key(0), 1))
    params = params._replace(w_x=jnp.asarray(100 + rng.integers(-2, 3, (1, 4 * H)) / 2, "bfloat16"))
    carry = cell.initial_carry(params, 4, "bfloat16")
    got = cell.step(params, carry, x)[1]
    wide = jax.tree.map(lambda a: a.astype("float32"), (params, carry, x))
    np.testing.assert_allclose(got.astype("float32"), cell.step(*wide)[1], atol=0.02)


@pytest.mark.parametrize(("kind", "gates"), [(LayerNormLSTM, 4), (LayerNormGRU, 3)])
def test_init(kind, gates):
    given = Initialization(bias=nn.initializers.constant(2.0))
    params = kind(H, initialization=given).init(jax.random.key(0), 3)
    assert params.b is None
    assert params.b_h is None
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    for name, leaf in params.extra._asdict().items():
        value = 1 if name.startswith("scale") else 2 if name == "b" else 0
        size = H if name in ("scale_c", "b_c", "b_hn") else gates * H
        np.testing.assert_array_equal(leaf, np.full(size, value))


def test_forget_bias():
    b = LayerNormLSTM(3, forget_bias=1.5).init(jax.random.key(0), 2).extra.b
    np.testing.assert_array_equal(b, np.repeat([0, 1.5, 0, 0], 3))
