"""The coupled gates against numbers worked by hand and the LSTM with gates tied by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import LSTM, CoupledLSTM, GatedParams, LSTMCarry

LN2, LN3 = np.log(2), np.log(3)


def test_one_unit_by_hand():
    # With x = 1, h = 2 the gates f, g, o see -ln 3, ln 2, ln 3:
    # c = 1/4 c₀ + 3/4 · 3/5 = ln 2 for the c₀ below,  h = 3/4 · 3/5.
    params = GatedParams(
        w_x=jnp.array([[1.0, -2.0, 4.0]]),
        w_h=jnp.array([[0.5, 1.5, -2.0]]),
        b=jnp.array([-LN3 - 2, LN2 - 1, LN3]),
    )
    carry = LSTMCarry(c=jnp.array([[4 * (LN2 - 0.45)]]), h=jnp.array([[2.0]]))
    carry, y = CoupledLSTM(1).step(params, carry, jnp.array([[1.0]]))
    np.testing.assert_allclose(carry.c, [[LN2]], rtol=1e-6)
    np.testing.assert_allclose(y, [[0.45]], rtol=1e-6)
    np.testing.assert_array_equal(carry.h, y)


def test_is_an_lstm_whose_input_gate_sees_the_negative(rng):
    """1 - σ(z) = σ(-z)."""
    params = CoupledLSTM(4).init(jax.random.key(0), 3)
    tied = jax.tree.map(lambda a: jnp.concatenate([-a[..., :4], a], -1), params)
    x, c, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4, 4))
    got = CoupledLSTM(4).step(params, LSTMCarry(c, h), x)
    want = LSTM(4).step(tied, LSTMCarry(c, h), x)
    chex.assert_trees_all_close(got, want, atol=1e-6)


def test_forget_bias_is_the_first_block():
    b = CoupledLSTM(3, forget_bias=-0.5).init(jax.random.key(0), 2).b
    np.testing.assert_array_equal(b, np.repeat([-0.5, 0, 0], 3))
