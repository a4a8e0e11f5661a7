"""Lengths of rows in the place of a mask, everywhere alike."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM
from seqnets.modules import RNN, Bidirectional, Stack
from seqnets.recurrence import lengths_to_mask, unroll

B, T, D = 4, 6, 3
LENGTHS = [6, 1, 0, 4]
MODULES = {
    "rnn": RNN(GRU(4)),
    "reverse": RNN(GRU(4), reverse=True),
    "bidirectional": Bidirectional(GRU(4), LSTM(4)),
    "stack": Stack((LSTM(4), GRU(4)), bidirectional=True),
}


@pytest.mark.parametrize("kind", [list, np.array, jnp.array])
def test_they_are_a_mask(kind, rng):
    cell = LSTM(4)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    got = unroll(cell, params, None, xs, lengths=kind(LENGTHS))
    chex.assert_trees_all_equal(
        got, unroll(cell, params, None, xs, mask=lengths_to_mask(LENGTHS, T))
    )


@pytest.mark.parametrize("name", MODULES)
def test_modules_hand_them_on(name, rng):
    module, xs = MODULES[name], jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    variables = module.init(jax.random.key(0), xs)
    got = jax.jit(lambda lengths: module.apply(variables, xs, lengths=lengths))(jnp.array(LENGTHS))
    want = module.apply(variables, xs, mask=lengths_to_mask(LENGTHS, T))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


def test_mistakes():
    cell, xs = GRU(4), jnp.ones((B, T, D))
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(ValueError, match="lengths: expected None where a mask is given, got both"):
        unroll(cell, params, None, xs, mask=lengths_to_mask(LENGTHS, T), lengths=LENGTHS)
    for wrong in ([7, 1, 0, 4], [-1, 1, 0, 4]):
        with pytest.raises(ValueError, match=r"lengths: expected integers in \[0, 6\], got"):
            unroll(cell, params, None, xs, lengths=wrong)
    with pytest.raises(ValueError, match=r"lengths: expected shape \(4,\) \(rows of xs\), got"):
        unroll(cell, params, None, xs, lengths=LENGTHS[:3])
    with pytest.raises(TypeError, match="lengths: expected an array of ints"):
        unroll(cell, params, None, xs, lengths=jnp.ones(B))
