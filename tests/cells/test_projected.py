"""The projected LSTM against PyTorch's, see golden.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GatedParams, LSTMCarry, ProjectedLSTM
from seqnets.recurrence import unroll

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))
CELL = ProjectedLSTM(features=2, hidden=6)


def params_of(kind):
    """PyTorch's arrays, transposed; its gates are in our order too."""
    weights = {name: GOLDEN[f"{kind}/{name}_l0"].T for name in ("weight_ih", "weight_hh")}
    b = [GOLDEN[f"{kind}/bias_{which}_l0"] for which in ("ih", "hh")]
    return GatedParams(*weights.values(), b=b, w_p=GOLDEN[f"{kind}/weight_hr_l0"].T)


def test_values_and_gradients_equal_pytorch():
    with jax.enable_x64(True):
        weights = params_of("weights")
        carry = LSTMCarry(*(jnp.asarray(GOLDEN[f"start/{name}"]) for name in "ch"))
        xs = jnp.asarray(GOLDEN["xs"])

        def value(params):
            carry_after, ys = unroll(CELL, params, carry, xs)
            return jnp.sum(jnp.sin(3 * ys)) + jnp.sum(carry_after.c), (carry_after, ys)

        params = jax.tree.map(jnp.asarray, weights._replace(b=sum(weights.b)))
        gradients, (after, ys) = jax.jit(jax.grad(value, has_aux=True))(params)
    want = params_of("gradients")
    # Float64 on both sides: rounding of five steps, and of sums over 15 of them in the gradients.
    close = dict(rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ys, GOLDEN["ys"], **close)
    for name in "ch":
        np.testing.assert_allclose(getattr(after, name), GOLDEN[f"final/{name}"], **close)
    for bias in want.b:
        np.testing.assert_allclose(gradients.b, bias, **close)
    for name in ("w_x", "w_h", "w_p"):
        np.testing.assert_allclose(getattr(gradients, name), getattr(want, name), **close)


def test_init_and_sizes():
    params = CELL.init(jax.random.key(0), 4)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(4, 24), (2, 24), (24,), (6, 2)]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    np.testing.assert_array_equal(params.b, np.repeat([0, 1, 0, 0], 6))
    limit = np.sqrt(6 / (6 + 2))
    assert 0.5 * limit < abs(params.w_p).max() <= limit
    for block in np.split(np.asarray(params.w_h), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(2), atol=1e-5)  # float32 QR
    carry = CELL.initial_carry(params, 3, "bfloat16")
    assert (carry.c.shape, carry.h.shape) == ((3, 6), (3, 2))
    assert carry.c.dtype == carry.h.dtype == jnp.bfloat16


def test_rejects():
    with pytest.raises(ValueError, match=r"hidden: expected a value in \[1, inf\], got 0"):
        ProjectedLSTM(2, hidden=0)
    with pytest.raises(ValueError, match=r"features: expected a value in \[1, inf\], got 0"):
        ProjectedLSTM(0, hidden=2)
