"""The LSTM against numbers worked by hand and Flax's cell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import LSTM, GatedParams, LSTMCarry

LN2, LN3 = np.log(2), np.log(3)


def test_one_unit_by_hand():
    # σ(±ln 3) = 3/4, 1/4 and tanh(ln 2) = 3/5.  With x = 1, h = 2 the gates i, f, g, o see
    # ln 3, 0, ln 2, -ln 3:  c = 1/2 c₀ + 3/4 · 3/5 = ln 2 for the c₀ below,  h = 1/4 · 3/5.
    w_x = [[1.0, -2.0, 3.0, 4.0]]
    w_h = [[0.5, 1.5, -1.0, -2.0]]
    b = [LN3 - 2, -1.0, LN2 - 1, -LN3]
    carry = LSTMCarry(c=jnp.array([[2 * (LN2 - 0.45)]]), h=jnp.array([[2.0]]))
    params = GatedParams(*map(jnp.asarray, (w_x, w_h, b)))
    carry, y = LSTM(1).step(params, carry, jnp.array([[1.0]]))
    np.testing.assert_allclose(carry.c, [[LN2]], rtol=1e-6)
    np.testing.assert_allclose(y, [[0.15]], rtol=1e-6)
    np.testing.assert_array_equal(carry.h, y)


def test_forget_bias_is_part_of_the_bias():
    for value in (1.0, -0.5):
        b = LSTM(3, forget_bias=value).init(jax.random.key(0), 2).b
        np.testing.assert_array_equal(b, np.repeat([0, value, 0, 0], 3))


def test_equals_flax(rng):
    x, c, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4, 4))
    theirs = nn.OptimizedLSTMCell(4, bias_init=nn.initializers.normal())
    variables = theirs.init(jax.random.key(0), (c, h), x)
    weights = variables["params"]
    params = GatedParams(
        w_x=jnp.concatenate([weights[f"i{gate}"]["kernel"] for gate in "ifgo"], -1),
        w_h=jnp.concatenate([weights[f"h{gate}"]["kernel"] for gate in "ifgo"], -1),
        b=jnp.concatenate([weights[f"h{gate}"]["bias"] for gate in "ifgo"]),
    )
    (want_c, want_h), _ = theirs.apply(variables, (c, h), x)
    carry, y = LSTM(4).step(params, LSTMCarry(c, h), x)
    np.testing.assert_allclose(carry.c, want_c, atol=1e-6)
    np.testing.assert_allclose(y, want_h, atol=1e-6)
