"""Peepholes against numbers worked by hand, and what they are when they are zero."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import LSTM, GatedParams, LSTMCarry, PeepholeLSTM, Peepholes

LN2, LN3 = np.log(2), np.log(3)


def test_one_unit_by_hand():
    # σ(±ln 3) = 3/4, 1/4 and tanh(ln 2) = 3/5. The products are zero; the gates i, f, g, o see
    # b + p c with c₀ = 2 ln 2 - 9/10 before, for i and f, and c = ln 2 after, for o:
    # c = 1/2 c₀ + 3/4 · 3/5 = ln 2,  h = 1/4 · 3/5.
    c0 = 2 * LN2 - 0.9
    b = [LN3 - 2 * c0, 3 * c0, LN2, -LN3 - 0.5 * LN2]
    peepholes = Peepholes(*(jnp.array([p]) for p in (2.0, -3.0, 0.5)))
    params = GatedParams(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.array(b), extra=peepholes)
    carry = LSTMCarry(c=jnp.array([[c0]]), h=jnp.array([[7.0]]))
    carry, y = PeepholeLSTM(1).step(params, carry, jnp.array([[1.0]]))
    np.testing.assert_allclose(carry.c, [[LN2]], rtol=1e-6)
    np.testing.assert_allclose(y, [[0.15]], rtol=1e-6)
    np.testing.assert_array_equal(carry.h, y)


def test_starts_as_the_lstm(rng):
    params = PeepholeLSTM(4, forget_bias=0.5).init(jax.random.key(3), 3)
    plain = LSTM(4, forget_bias=0.5).init(jax.random.key(3), 3)
    chex.assert_trees_all_equal(params._replace(extra=None), plain, strict=True)
    for peephole in params.extra:
        np.testing.assert_array_equal(peephole, np.zeros(4, "float32"))
    x, c, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4, 4))
    got = PeepholeLSTM(4).step(params, LSTMCarry(c, h), x)
    chex.assert_trees_all_equal(got, LSTM(4).step(plain, LSTMCarry(c, h), x), strict=True)
