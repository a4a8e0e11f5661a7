"""The simple recurrent unit against numbers worked by hand, its highway and its first draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import SRU, SRUCarry, SRUParams

LN3 = np.log(3)


def test_one_unit_by_hand():
    # With x = 2, c = 4 and highway bias ln(3/2), so that α = √(1 + 3) = 2:
    # f sees 2 · 1 + 4 · (-1) + b_f = ln 3, so f = 3/4;
    # r sees 2 · 3 + 4 / 2 + b_r = -ln 3, so r = 1/4;
    # c' = 3/4 · 4 + 1/4 · (2 · 6) = 6;  y = 1/4 · 6 + 3/4 · (2 · 2) = 4.5.
    params = SRUParams(
        w_x=jnp.array([[6.0, 1.0, 3.0]]),
        v=jnp.array([-1.0, 0.5]),
        b=jnp.array([LN3 + 2, -LN3 - 8]),
    )
    cell = SRU(1, highway_bias=np.log(1.5))
    carry, y = cell.step(params, SRUCarry(jnp.array([[4.0]])), jnp.array([[2.0]]))
    np.testing.assert_allclose(carry.c, [[6.0]], rtol=1e-6)
    np.testing.assert_allclose(y, [[4.5]], rtol=1e-6)


def test_the_highway_of_a_closed_gate(rng):
    """r = 0: the output is the input, times √3 or projected, whatever the state."""
    x, c = (jnp.asarray(rng.normal(size=(5, 4)), "float32") for _ in range(2))
    for D in (4, 3):
        params = SRU(4).init(jax.random.key(0), D)
        params = params._replace(b=jnp.repeat(jnp.array([0.0, -1e4]), 4))
        _, y = SRU(4).step(params, SRUCarry(c), x[:, :D])
        want = np.sqrt(3) * x if D == 4 else x[:, :D] @ params.w_x[:, 12:]
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("D", [64, 65])
def test_first_draws(D):
    H, highway_bias = 64, -1.0
    params = SRU(H, highway_bias=highway_bias).init(jax.random.key(0), D)
    assert {leaf.dtype.name for leaf in params} == {"float32"}
    blocks = np.split(np.asarray(params.w_x), 3 if D == H else 4, axis=1)
    # Variances by D: of the candidate 1, of gates 1/2, of the highway α²; v has one of 1/2.
    variances = [1, 0.5, 0.5, 1 + 2 * np.exp(highway_bias)]
    for block, variance in zip(blocks, variances, strict=False):
        assert block.shape == (D, H)
        np.testing.assert_allclose(block.var() * D, variance, rtol=0.07)  # 4096 draws
        assert abs(block).max() <= np.sqrt(3 * variance / D) * (1 + 1e-6)
    assert params.v.shape == (2 * H,)
    assert 0.95 * np.sqrt(1.5) < abs(params.v).max() <= np.sqrt(1.5)
    assert params.v.min() < 0 < params.v.max()
    np.testing.assert_array_equal(params.b, np.repeat(np.float32([0, highway_bias]), H))


def test_sizes_must_fit():
    with pytest.raises(ValueError, match=r"in_features: .* got 0"):
        SRU(4).init(jax.random.key(0), 0)
    params = SRU(4).init(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=r"xs: expected 3 features, .* got 4"):
        SRU(4).step(params, SRUCarry(jnp.zeros((2, 4))), jnp.ones((2, 4)))
