"""Both GRUs against numbers worked by hand, and the one that Flax has against Flax's cell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import GRU, GatedParams, GRUCarry, GRUResetBefore

LN2, LN3 = np.log(2), np.log(3)
W_X, W_H = [[1.0, -2.0, 3.0]], [[2.0, 4.0, 0.4]]
H0 = 0.5

# With x = 1, h = 1/2:  r = σ(ln 3) = 3/4,  z = σ(-ln 3) = 1/4,  n = tanh(ln 2) = 3/5,
# h' = 3/4 · 3/5 + 1/4 · 1/2 = 0.575.


def step(cell, b, b_h):
    params = GatedParams(*(jnp.asarray(a) for a in (W_X, W_H, b)))
    params = params._replace(b_h=None if b_h is None else jnp.asarray(b_h))
    carry, y = cell.step(params, GRUCarry(jnp.array([[H0]])), jnp.array([[1.0]]))
    np.testing.assert_array_equal(carry.h, y)
    return float(y[0, 0])


def test_one_unit_by_hand_reset_after():
    # The candidate sees 3 + b_n + r (0.4 h + 0.2) = 3 + b_n + 3/4 · 0.4.
    b, b_h = [LN3 - 3, -LN3 - 1, LN2 - 3 - 0.3], [1.0, 1.0, 0.2]
    np.testing.assert_allclose(step(GRU(1), b, b_h), 0.575, rtol=1e-6)


def test_one_unit_by_hand_reset_before():
    # The candidate sees 3 + b_n + 0.4 (r h) = 3 + b_n + 0.4 · 3/8.
    b = [LN3 - 2, -LN3, LN2 - 3 - 0.15]
    np.testing.assert_allclose(step(GRUResetBefore(1), b, None), 0.575, rtol=1e-6)


def test_the_variants_differ_unless_the_reset_is_a_scalar(rng):
    """With one unit r commutes with the product, with two it does not."""
    x = jnp.asarray(rng.normal(size=(5, 3)), "float32")
    for H, same in ((1, True), (2, False)):
        params = GRUResetBefore(H).init(jax.random.key(0), 3)
        carry = GRUCarry(jnp.asarray(rng.normal(size=(5, H)), "float32"))
        before = GRUResetBefore(H).step(params, carry, x)[1]
        after = GRU(H).step(params, carry, x)[1]
        assert (abs(before - after).max() < 1e-6) == same


def test_reset_after_equals_flax(rng):
    x, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4))
    theirs = nn.GRUCell(4, bias_init=nn.initializers.normal())
    variables = theirs.init(jax.random.key(0), h, x)
    weights = variables["params"]
    params = GatedParams(
        w_x=jnp.concatenate([weights[f"i{gate}"]["kernel"] for gate in "rzn"], -1),
        w_h=jnp.concatenate([weights[f"h{gate}"]["kernel"] for gate in "rzn"], -1),
        b=jnp.concatenate([weights[f"i{gate}"]["bias"] for gate in "rzn"]),
        b_h=jnp.concatenate([jnp.zeros(8), weights["hn"]["bias"]]),
    )
    want, _ = theirs.apply(variables, h, x)
    _, y = GRU(4).step(params, GRUCarry(h), x)
    np.testing.assert_allclose(y, want, atol=1e-6)
