"""What cells share that prepare their inputs, and the options that every cell has."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

from seqnets.cells import (
    MGU,
    SRU,
    ConvLSTM,
    GRUResetBefore,
    IndRNN,
    PreparedCell,
)
from seqnets.cells.prepared import project
from seqnets.initializers import Initialization

PREPARED = {
    "gru-reset-before": GRUResetBefore(4),
    "mgu": MGU(4),
    "indrnn": IndRNN(4),
    "sru": SRU(3),
    "sru-projected": SRU(4),
    "conv-lstm": ConvLSTM(4, image=(2,), kernel=(2,)),
}
every_cell = pytest.mark.parametrize("cell", PREPARED.values(), ids=PREPARED.keys())


def inputs(rng, cell, *leading):
    image = cell.image if isinstance(cell, ConvLSTM) else ()
    return jnp.asarray(rng.normal(size=(*leading, *image, 3)), "float32")


@every_cell
def test_a_step_advances_what_was_prepared_for_all_steps(cell, rng):
    assert isinstance(cell, PreparedCell)
    params, xs = cell.init(jax.random.key(0), 3), inputs(rng, cell, 4, 5)
    carry = cell.initial_carry(params, 5, "float32")
    params, carry = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape), "float32"), (params, carry)
    )
    got = cell.advance(params, carry, cell.prepare(params, xs)[2])
    want = cell.step(params, carry, xs[2])
    chex.assert_trees_all_close(got, want, atol=1e-5)


@every_cell
def test_initialization_reaches_every_weight(cell):
    given = Initialization(*(initializers.constant(float(value)) for value in (2, 3, 4)))
    params = dataclasses.replace(cell, initialization=given).init(jax.random.key(0), 3)
    inputs, recurrent, bias = [leaf for leaf in params if leaf is not None]
    for leaf, value in ((inputs, 2), (recurrent, 3), (bias, 4)):
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, value))


@every_cell
def test_init_follows_the_key(cell):
    first, again, other = (cell.init(jax.random.key(k), 3) for k in (0, 0, 1))
    chex.assert_trees_all_equal(first, again, strict=True)
    for leaf, changed in list(zip(first, other, strict=True))[:2]:
        assert abs(leaf - changed).max() > 0.1


@every_cell
def test_sizes_are_positive(cell):
    with pytest.raises(ValueError, match=r"features: expected a value in \[1, inf\], got 0"):
        dataclasses.replace(cell, features=0)
    with pytest.raises(ValueError, match=r"in_features: .* got 0"):
        cell.init(jax.random.key(0), 0)


def test_project(rng):
    xs, w, b = (rng.normal(size=s).astype("f4") for s in [(6, 5, 3), (3, 8), (8,)])
    want = np.einsum("tbd,dg->tbg", xs, w)
    np.testing.assert_allclose(project(jnp.asarray(xs), w), want, atol=1e-5)
    np.testing.assert_allclose(project(jnp.asarray(xs), w, b), want + b, atol=1e-5)
    np.testing.assert_allclose(project(jnp.asarray(xs[2]), w, b), want[2] + b, atol=1e-5)
    with pytest.raises(ValueError, match=r"xs: expected 3 features, .* got 5"):
        project(jnp.ones((2, 5)), jnp.ones((3, 8)))
