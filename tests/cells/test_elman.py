"""Elman's network against numbers worked by hand and Flax's cell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import Elman, ElmanCarry, GatedParams


def test_one_unit_by_hand():
    # tanh(ln 2) = 3/5:  0.5 · 2 + 0.25 · (-2) + (ln 2 - 0.5) = ln 2
    params = GatedParams(*map(jnp.asarray, ([[2.0]], [[-2.0]], [np.log(2) - 0.5])))
    carry, y = Elman(1).step(params, ElmanCarry(jnp.array([[0.25]])), jnp.array([[0.5]]))
    np.testing.assert_allclose(y, [[0.6]], rtol=1e-6)
    np.testing.assert_array_equal(carry.h, y)


def test_any_activation(rng):
    params = Elman(4).init(jax.random.key(0), 3)._replace(b=jnp.asarray(rng.normal(size=4), "f4"))
    x, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4))
    z = x @ params.w_x + h @ params.w_h + params.b[None]
    for activation in (jnp.sin, jax.nn.relu):
        _, y = Elman(4, activation=activation).step(params, ElmanCarry(h), x)
        np.testing.assert_allclose(y, activation(z), atol=1e-6)


def test_equals_flax(rng):
    x, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4))
    theirs = nn.SimpleCell(4, bias_init=nn.initializers.normal())
    variables = theirs.init(jax.random.key(0), h, x)
    i, h_ = (variables["params"][name] for name in ("i", "h"))
    params = GatedParams(w_x=i["kernel"], w_h=h_["kernel"], b=i["bias"])
    want, _ = theirs.apply(variables, h, x)
    _, y = Elman(4).step(params, ElmanCarry(h), x)
    np.testing.assert_allclose(y, want, atol=1e-6)
