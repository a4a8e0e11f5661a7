"""Independent units against numbers worked by hand, and that they are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import Elman, GatedParams, IndRNN, IndRNNCarry, IndRNNParams
from seqnets.cells.elman import ElmanCarry


def test_two_units_by_hand():
    # 2 · 3 - 1/2 · 4 + 1 = 5;  -2 · 3 + 1/4 · 8 + 1 = -3, which relu takes to 0.
    params = IndRNNParams(
        w_x=jnp.array([[2.0, -2.0]]), u=jnp.array([-0.5, 0.25]), b=jnp.array([1.0, 1.0])
    )
    carry, y = IndRNN(2).step(params, IndRNNCarry(jnp.array([[4.0, 8.0]])), jnp.array([[3.0]]))
    np.testing.assert_array_equal(y, [[5.0, 0.0]])
    np.testing.assert_array_equal(carry.h, y)


def test_is_elman_with_a_diagonal(rng):
    params = IndRNN(4).init(jax.random.key(0), 3)._replace(b=jnp.arange(4.0))
    diagonal = GatedParams(w_x=params.w_x, w_h=jnp.diag(params.u), b=params.b)
    x, h = (jnp.asarray(rng.normal(size=(5, n)), "float32") for n in (3, 4))
    _, y = IndRNN(4, activation=jnp.sin).step(params, IndRNNCarry(h), x)
    _, want = Elman(4, activation=jnp.sin).step(diagonal, ElmanCarry(h), x)
    np.testing.assert_allclose(y, want, atol=1e-6)


def test_first_draws():
    H, D = 1000, 3
    params = IndRNN(H).init(jax.random.key(0), D)
    assert [leaf.shape for leaf in params] == [(D, H), (H,), (H,)]
    assert {leaf.dtype.name for leaf in params} == {"float32"}
    # u uniform in [0, 1): 1000 draws come within 0.02 of both ends.
    assert 0 <= params.u.min() < 0.02
    assert 0.98 < params.u.max() < 1
    assert abs(params.u.mean() - 0.5) < 0.05
    assert abs(params.w_x).max() <= np.sqrt(6 / (D + H))
    np.testing.assert_array_equal(params.b, np.zeros(H))


def test_sizes_must_fit():
    with pytest.raises(ValueError, match=r"in_features: .* got 0"):
        IndRNN(4).init(jax.random.key(0), 0)
