"""The carry of every step beside the output."""

import chex
import jax
import jax.numpy as jnp
import pytest

from seqnets.cells import GRU, LSTM, CellStack, GRUResetBefore, WithCarries
from seqnets.modules import RNN
from seqnets.recurrence import unroll

B, T, D, H = 3, 5, 2, 4
CELLS = {"lstm": LSTM(H), "before": GRUResetBefore(H), "stack": CellStack((LSTM(H), GRU(H)))}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_carries_are_those_of_a_loop_that_stops_at_every_step(name, reverse, rng):
    with jax.enable_x64(True):
        cell = CELLS[name]
        params = jax.tree.map(
            lambda p: jnp.asarray(p + 0.3 * rng.normal(size=p.shape), "float64"),
            cell.init(jax.random.key(0), D),
        )
        xs, lengths = jnp.asarray(rng.normal(size=(B, T, D))), jnp.array([5, 2, 0])
        last, (ys, carries) = unroll(
            WithCarries(cell), params, None, xs, lengths=lengths, reverse=reverse
        )
        want, outputs = unroll(cell, params, None, xs, lengths=lengths, reverse=reverse)
        chex.assert_trees_all_close((last, ys), (want, outputs), rtol=1e-12)
        for row, length in enumerate([5, 2, 0]):
            for t in range(length):
                part = slice(t, length) if reverse else slice(0, t + 1)
                stopped, _ = unroll(cell, params, None, xs[row : row + 1, part], reverse=reverse)
                at = jax.tree.map(lambda c, row=row, t=t: c[row : row + 1, t], carries)
                chex.assert_trees_all_close(at, stopped, rtol=1e-12)
            padded = jax.tree.map(lambda c, row=row, n=length: c[row, n:], carries)
            chex.assert_trees_all_equal(padded, jax.tree.map(jnp.zeros_like, padded))


def test_parameters_are_those_of_the_cell(rng):
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    variables = RNN(LSTM(H)).init(jax.random.key(0), xs)
    last, (ys, carries) = RNN(WithCarries(LSTM(H))).apply(variables, xs)
    want, outputs = RNN(LSTM(H)).apply(variables, xs)
    chex.assert_trees_all_close((last, ys), (want, outputs), rtol=1e-5, atol=1e-6)
    chex.assert_shape(carries.c, (B, T, H))
