"""A learned first carry: where it is, where it is used, and that training moves it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import GRU, LSTM, ConvLSTM, GRUCarry, LearnedCarry, LSTMCarry
from seqnets.recurrence import unroll


def test_begins_with_the_cells_own_parameters_and_carry():
    for cell in (LSTM(4), ConvLSTM(4, (2,), (3,))):
        params = LearnedCarry(cell).init(jax.random.key(0), 3)
        plain = cell.init(jax.random.key(0), 3)
        chex.assert_trees_all_equal(params.cell, plain, strict=True)
        start = LearnedCarry(cell).initial_carry(params, 5, "float32")
        chex.assert_trees_all_equal(start, cell.initial_carry(plain, 5, "float32"), strict=True)
        assert [leaf.shape for leaf in params.carry] == [leaf.shape[1:] for leaf in start]
    assert LearnedCarry(LSTM(4)).features == 4


def test_every_row_starts_from_it_in_the_dtype_asked_for(rng):
    cell = LearnedCarry(LSTM(4))
    c, h = rng.normal(size=(2, 4)).astype("float32")
    params = cell.init(jax.random.key(0), 3)._replace(carry=LSTMCarry(jnp.array(c), jnp.array(h)))
    start = cell.initial_carry(params, 6, "bfloat16")
    assert start.c.dtype == start.h.dtype == jnp.bfloat16
    np.testing.assert_array_equal(start.c, np.tile(jnp.array(c, "bfloat16"), (6, 1)))
    np.testing.assert_array_equal(start.h, np.tile(jnp.array(h, "bfloat16"), (6, 1)))


def test_equals_the_cell_given_that_carry_and_its_gradient_is_the_sum_over_rows(rng):
    cell, start = GRU(4), jnp.asarray(rng.normal(size=4), "float32")
    params = cell.init(jax.random.key(0), 3)
    xs = jnp.asarray(rng.normal(size=(5, 6, 3)), "float32")
    learned = LearnedCarry(cell).init(jax.random.key(0), 3)._replace(carry=GRUCarry(start))

    def outside(carry):
        return jnp.sum(jnp.sin(3 * unroll(cell, params, carry, xs)[1]))

    def inside(learned):
        return jnp.sum(jnp.sin(3 * unroll(LearnedCarry(cell), learned, None, xs)[1]))

    want, by_row = jax.value_and_grad(outside)(GRUCarry(jnp.tile(start, (5, 1))))
    got, gradient = jax.value_and_grad(inside)(learned)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert abs(gradient.carry.h).min() > 1e-3
    np.testing.assert_allclose(gradient.carry.h, by_row.h.sum(0), rtol=1e-5, atol=1e-6)


def test_every_leaf_is_its_own_buffer():
    """One buffer under two names could not be donated."""
    cell = LearnedCarry(LSTM(4))
    carry = cell.initial_carry(cell.init(jax.random.key(0), 3), 6, "float32")
    moved = jax.jit(lambda carry: jax.tree.map(lambda a: a + 1, carry), donate_argnums=0)(carry)
    assert all((leaf == 1).all() for leaf in moved)
