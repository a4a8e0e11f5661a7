"""The driver's own doings: arguments, dtypes, empty sizes, errors. `contracts/` holds the rest."""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    SRU,
    CellStack,
    CompositeCell,
    GatedCell,
    GRUCarry,
    GRUResetBefore,
    LSTMCarry,
)
from seqnets.recurrence import Execution, lengths_to_mask, unroll


@pytest.fixture
def model(rng):
    cell = LSTM(4)
    return cell, cell.init(jax.random.key(0), 3), rng.normal(size=(2, 5, 3)).astype("float32")


def test_a_mask_of_all_and_no_mask_are_the_same(model):
    everywhere = np.ones((2, 5), bool)
    want = unroll(*model[:2], None, model[2])
    got = unroll(*model[:2], None, model[2], mask=everywhere, reset=~everywhere)
    chex.assert_trees_all_equal(got, want, strict=True)


def test_lists_and_numpy_arrays_are_arrays(model):
    cell, params, xs = model
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    want = unroll(cell, params, None, jnp.asarray(xs), mask=jnp.asarray(mask))
    got = unroll(cell, params, None, xs.tolist(), mask=mask.tolist(), reset=(~mask).tolist())
    chex.assert_trees_all_close(got, want, atol=1e-6)
    # NumPy's default is float64; JAX reads it as float32 without a word.
    double = jax.tree.map(np.float64, params)
    got = unroll(cell, double, None, xs.astype("float64"), mask=mask)
    chex.assert_trees_all_close(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ("of_params", "of_xs", "of_result"),
    [
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float32", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float16", "float16", "float16"),
    ],
)
def test_dtypes_without_a_given_carry(model, of_params, of_xs, of_result):
    cell, params, xs = model
    params = jax.tree.map(lambda p: p.astype(of_params), params)
    flags = np.ones((2, 5), bool)
    out = unroll(cell, params, None, jnp.asarray(xs, of_xs), mask=flags, reset=flags)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(out)} == {of_result}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_carry_keeps_its_dtype(model, dtype):
    cell, params, xs = model
    params = jax.tree.map(lambda p: p.astype("bfloat16"), params)
    carry = cell.initial_carry(params, 2, dtype)
    flags = np.ones((2, 5), bool)
    final, _ = unroll(cell, params, carry, jnp.asarray(xs, "bfloat16"), mask=flags, reset=flags)
    assert {leaf.dtype.name for leaf in final} == {dtype}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("batch", "steps"), [(0, 5), (2, 0), (0, 0)])
def test_no_rows_or_no_steps(model, rng, batch, steps, reverse):
    cell, params, _ = model
    carry = LSTMCarry(*rng.normal(size=(2, batch, 4)).astype("float32"))
    flags = np.ones((batch, steps), bool)
    final, ys = unroll(
        cell, params, carry, np.ones((batch, steps, 3)), mask=flags, reset=flags, reverse=reverse
    )
    assert ys.shape == (batch, steps, 4)
    assert ys.dtype == "float32"
    chex.assert_trees_all_equal(final, carry, strict=True)


def test_errors_name_the_argument(model):
    cell, params, xs = model
    flags = np.ones((2, 5), bool)
    with pytest.raises(ValueError, match=r"xs: expected shape \[B, T, D\]"):
        unroll(cell, params, None, xs[0])
    for other in (LSTM(4), GRUResetBefore(4), SRU(4)):
        with pytest.raises(ValueError, match=r"xs: .* \[B, T, D\] .* got \(2, 5, 2, 3\)"):
            unroll(other, other.init(jax.random.key(0), 3), None, jnp.ones((2, 5, 2, 3)))
        with pytest.raises(ValueError, match=r"x: expected shape \[B, D\] .* got \(2, 5, 3\)"):
            CellStack((other,)).step((other.init(jax.random.key(0), 3),), (None,), xs)
        with pytest.raises(TypeError, match="xs: expected an array of floats, got dtype int32"):
            unroll(other, other.init(jax.random.key(0), 3), None, jnp.ones((2, 5, 3), int))
    with pytest.raises(TypeError, match=r"cell: expected a cell \(init, .*\), got Dense"):
        unroll(nn.Dense(4), params, None, xs)
    with pytest.raises(ValueError, match=r"xs: expected 3 features, .* got 2"):
        unroll(cell, params, None, xs[..., :2])
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 5\)"):
        unroll(cell, params, None, xs, mask=flags.T)
    with pytest.raises(ValueError, match=r"reset: expected shape \(2, 5\)"):
        unroll(cell, params, None, xs, reset=flags[:1])
    with pytest.raises(TypeError, match="mask: expected an array of bools, got dtype float32"):
        unroll(cell, params, None, xs, mask=flags.astype("float32"))
    with pytest.raises(TypeError, match="reset: expected an array of bools, got dtype int32"):
        unroll(cell, params, None, xs, reset=flags.astype("int32"))
    with pytest.raises(ValueError, match="carry: expected the structure"):
        unroll(cell, params, GRUCarry(jnp.zeros((2, 4))), xs)
    with pytest.raises(ValueError, match=r"carry\.c: expected shape \(2, 4\)"):
        unroll(cell, params, cell.initial_carry(params, 3, "float32"), xs)
    with pytest.raises(TypeError, match=r"carry\.h: expected an array of floats, got dtype int32"):
        unroll(GRU(4), GRU(4).init(jax.random.key(0), 3), GRUCarry(jnp.zeros((2, 4), int)), xs)


class _OfOneArray(GatedCell):
    """A cell with a mistake: its carry has no h."""

    gates = 1

    def initial_carry(self, params, batch, dtype):
        return jnp.zeros((batch, 4), dtype)

    def pointwise(self, extra, z_x, z_h, carry):
        return jnp.tanh(z_x + z_h)


class _ForgetsTheCarry(_OfOneArray):
    def initial_carry(self, params, batch, dtype):
        return GRUCarry(jnp.zeros((batch, 4), dtype))


@dataclasses.dataclass(frozen=True)
class _Returns(CompositeCell):
    """A cell whose step returns what it is told."""

    result: Any
    features: int = 4

    def init(self, key, in_features):
        return ()

    def initial_carry(self, params, batch, dtype):
        return GRUCarry(jnp.zeros((batch, 4), dtype))

    def step(self, params, carry, x):
        return self.result(carry.h)


@pytest.mark.parametrize("strategy", ["auto", "scan"])
def test_mistakes_in_a_cell_of_ones_own_are_named(strategy):
    xs, execution = jnp.ones((2, 5, 3)), Execution(strategy)

    def run(cell):
        unroll(cell, cell.init(jax.random.key(0), 3), None, xs, execution=execution)

    with pytest.raises(TypeError, match=r"cell: expected a cell .* got the class LSTM; make an"):
        unroll(LSTM, None, None, xs)
    with pytest.raises(TypeError, match=r"initial_carry: .* with a field h, got ArrayImpl"):
        run(_OfOneArray(4))
    with pytest.raises((TypeError, ValueError), match=r"pointwise: .*expected .*GRUCarry.* got "):
        run(_ForgetsTheCarry(4))
    with pytest.raises(TypeError, match=r"cell\.step: expected to return \(carry, y\), got "):
        run(_Returns(lambda h: h))
    with pytest.raises(ValueError, match=r"cell\.step: returned carry: expected the str.*GRU"):
        run(_Returns(lambda h: (h, h)))
    with pytest.raises(ValueError, match=r"step: returned carry\.h: .*\(2, 4\) .*got \(2, 8\)"):
        run(_Returns(lambda h: (GRUCarry(jnp.tile(h, 2)), h)))


def test_lengths_to_mask(rng):
    lengths = rng.integers(0, 7, size=9)
    lengths[:2] = 0, 6
    want = np.array([[t < n for t in range(6)] for n in lengths])
    np.testing.assert_array_equal(lengths_to_mask(lengths, 6), want)
    assert lengths_to_mask([2, 0], 3).tolist() == [[True, True, False], [False] * 3]
    with pytest.raises(ValueError, match=r"lengths: expected shape \[B\]"):
        lengths_to_mask(lengths[None], 6)
    with pytest.raises(TypeError, match=r"lengths: expected an array of ints, got dtype float32"):
        lengths_to_mask([1.0, 2.0], 6)
