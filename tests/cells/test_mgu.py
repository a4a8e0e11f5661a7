"""Both minimal gated units against numbers worked by hand, and the later one against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import MGU, GatedParams, MGUCarry, MGUResetAfter

LN2, LN3 = np.log(2), np.log(3)
W_X, W_H = [[1.0, 3.0]], [[2.0, 0.4]]
H0 = 0.5

# With x = 1, h = 1/2:  f = σ(ln 3) = 3/4,  n = tanh(ln 2) = 3/5.


def step(cell, b, b_h):
    params = GatedParams(*(jnp.asarray(a) for a in (W_X, W_H, b)))
    params = params._replace(b_h=None if b_h is None else jnp.asarray(b_h))
    carry, y = cell.step(params, MGUCarry(jnp.array([[H0]])), jnp.array([[1.0]]))
    np.testing.assert_array_equal(carry.h, y)
    return float(y[0, 0])


def test_one_unit_by_hand_of_the_paper():
    # The candidate sees 3 + b_n + 0.4 (f h) = 3 + b_n + 0.4 · 3/8; h' = 1/4 · 1/2 + 3/4 · 3/5.
    np.testing.assert_allclose(step(MGU(1), [LN3 - 2, LN2 - 3.15], None), 0.575, rtol=1e-6)


def test_one_unit_by_hand_reset_after():
    # The candidate sees 3 + b_n + f (0.4 h + 0.2) = 3 + b_n + 3/4 · 0.4;
    # h' = 1/4 · 3/5 + 3/4 · 1/2.
    got = step(MGUResetAfter(1), [LN3 - 3, LN2 - 3.3], [1.0, 0.2])
    np.testing.assert_allclose(got, 0.525, rtol=1e-6)


def test_a_closed_gate_keeps_the_state_or_starts_afresh(rng):
    """What the docstrings say of the difference: f = 0."""
    params = MGU(4).init(jax.random.key(0), 3)
    closed = params._replace(b=jnp.repeat(jnp.array([-1e4, 0.3]), 4))
    x, h, other = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4, 4))
    np.testing.assert_array_equal(MGU(4).step(closed, MGUCarry(h), x)[1], h)
    afresh = (MGUResetAfter(4).step(closed, MGUCarry(state), x)[1] for state in (h, other))
    np.testing.assert_array_equal(*afresh)


def test_reset_after_equals_flax(rng):
    x, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4))
    random = nn.initializers.normal()
    theirs = nn.MGUCell(4, forget_bias_init=random, activation_bias_init=random)
    variables = theirs.init(jax.random.key(0), h, x)
    weights = variables["params"]
    params = GatedParams(
        w_x=jnp.concatenate([weights[f"i{gate}"]["kernel"] for gate in "fn"], -1),
        w_h=jnp.concatenate([weights[f"h{gate}"]["kernel"] for gate in "fn"], -1),
        b=jnp.concatenate([weights[f"i{gate}"]["bias"] for gate in "fn"]),
        b_h=jnp.concatenate([jnp.zeros(4), weights["hn"]["bias"]]),
    )
    want, _ = theirs.apply(variables, h, x)
    _, y = MGUResetAfter(4).step(params, MGUCarry(h), x)
    np.testing.assert_allclose(y, want, atol=1e-6)
