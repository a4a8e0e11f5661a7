"""Rematerialisation: the same results from less memory, whatever the lengths."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, GRUCarry, GRUResetBefore
from seqnets.modules import Stack
from seqnets.recurrence import Execution, Noise, unroll

B, T, D, H = 3, 11, 4, 5


def loss(cell, params, carry, xs, **options):
    final, ys = unroll(cell, params, carry, xs, **options)
    return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves((final, ys)))


def gradient(cell, point, **options):
    function = functools.partial(loss, cell, **options)
    return jax.jit(jax.value_and_grad(function, (0, 1, 2)))(*point)


def draw(cell, rng):
    params = cell.init(jax.random.key(0), D)
    tree = (params, cell.initial_carry(params, B, "float64"), jnp.zeros((B, T, D)))
    return jax.tree.map(lambda x: jnp.asarray(x + 0.4 * rng.normal(size=x.shape)), tree)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", [GRU(H), GRUResetBefore(H)], ids=["fused", "scan"])
def test_results_do_not_depend_on_it(cell, reverse, rng):
    """Chunks of 1, that divide T or not, of T and more; holes, resets and noise in the rows."""
    with jax.enable_x64(True):
        point = draw(cell, rng)
        flags = {
            "mask": jnp.asarray(rng.random((B, T)) < 0.7),
            "reset": jnp.asarray(rng.random((B, T)) < 0.3),
            "reverse": reverse,
            "noise": Noise(
                hidden=jnp.asarray(rng.random((B, H))),
                updates=GRUCarry(h=jnp.asarray(rng.random((B, T, H)) < 0.7)),
            ),
        }
        want = gradient(cell, point, **flags)
        for every in (1, 3, 4, T, T + 1):
            got = gradient(cell, point, **flags, execution=Execution(remat=every))
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), got, want
            )


@pytest.mark.parametrize("strategy", ["fused", "scan"])
def test_memory_is_a_fraction(strategy):
    """By the compiler's own count of temporary bytes; the exact figures are the benchmark's."""
    cell, steps = LSTM(16), 1024
    params = cell.init(jax.random.key(0), 4)
    xs = jnp.zeros((2, steps, 4))

    def bytes_of(remat):
        execution = Execution(strategy, remat)
        function = jax.grad(lambda p: loss(cell, p, None, xs, execution=execution))
        return jax.jit(function).lower(params).compile().memory_analysis().temp_size_in_bytes

    # Kept in any case: inputs and outputs of all steps and their cotangents, 4 of some 10 arrays.
    assert bytes_of(32) < 0.6 * bytes_of(None)


def test_modules_hand_it_on(rng):
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    for bidirectional in (False, True):
        plain, chunked = (
            Stack((LSTM(H), GRU(H)), bidirectional=bidirectional, execution=Execution(remat=every))
            for every in (None, 4)
        )
        variables = plain.init(jax.random.key(0), xs)
        want, got = plain.apply(variables, xs), chunked.apply(variables, xs)
        chex.assert_trees_all_close(got, want, atol=1e-6)
        jaxpr = str(jax.make_jaxpr(chunked.apply)(variables, xs))
        assert jaxpr.count("prevent_cse=False") >= 2 * (1 + bidirectional)


def test_chunks_have_a_step_at_least(rng):
    with pytest.raises(ValueError, match="remat: expected a value in"):
        Execution(remat=0)
