"""Layers inside of `jax.shard_map` with its checks: two devices against one."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from seqnets.cells import GRU, LSTM, CellStack, GRUResetBefore, LearnedCarry, ProjectedLSTM
from seqnets.modules import Stack
from seqnets.recurrence import Execution, unroll
from seqnets.varying import vary_alike

B, T, D, H = 4, 5, 3, 4
WHOLE, ROWS = PartitionSpec(), PartitionSpec("rows")
CELLS = {
    "lstm": LSTM(H),
    "projected": ProjectedLSTM(2, hidden=H),
    "learned": LearnedCarry(GRU(H)),
    "reset_before": GRUResetBefore(H),
    "stack": CellStack((LSTM(H), GRU(H))),
}


def over_rows(function, specs):
    """A function of one device's rows run by two devices, its first output summed over them."""

    def local(*arguments):
        value, gradients = function(*arguments)
        return jax.lax.psum(value, "rows"), gradients

    mesh = Mesh(np.array(jax.devices()[:2]), ("rows",))
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(WHOLE, WHOLE)))


@pytest.mark.parametrize(
    ("name", "given", "strategy"),
    [
        *((name, False, "auto") for name in CELLS),
        ("lstm", True, "auto"),
        ("lstm", True, "scan"),
        ("stack", True, "scan"),
    ],
)
def test_values_and_gradients_are_those_of_one_device(name, given, strategy, rng):
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    mask, reset = (jnp.asarray(rng.random((B, T)) < rate) for rate in (0.7, 0.3))
    first = cell.initial_carry(params, B, "float32") if given else None

    @jax.value_and_grad
    def loss(params, xs, mask, reset, carry):
        _, ys = unroll(
            cell, params, carry, xs, mask=mask, reset=reset, execution=Execution(strategy)
        )
        return jnp.sum(jnp.sin(ys))

    specs = (WHOLE, ROWS, ROWS, ROWS, ROWS)
    arguments = (params, xs, mask, reset, first)
    # The rows of the other device are added in another order.
    chex.assert_trees_all_close(
        over_rows(loss, specs)(*arguments), loss(*arguments), rtol=1e-5, atol=1e-5
    )


def test_modules_with_mixed_precision(rng):
    model = Stack((LSTM(H), GRUResetBefore(H)), execution=Execution(dtype="bfloat16"))
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    params = model.init(jax.random.key(0), xs)

    @jax.value_and_grad
    def loss(params, xs):
        return jnp.sum(model.apply(params, xs)[1].astype("float32"))

    # Each device rounds its share of a gradient to 8 bits.
    chex.assert_trees_all_close(
        over_rows(loss, (WHOLE, ROWS))(params, xs), loss(params, xs), rtol=0.02, atol=0.1
    )


def test_every_array_varies_over_the_axes_of_all():
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("rows", "columns"))
    spec = PartitionSpec("rows", "columns")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spec, WHOLE), out_specs=(spec, spec))
    def alike(x, y):
        return vary_alike((x, y))  # the output says that y varies, or JAX refuses it

    x, y = jnp.arange(4.0).reshape(2, 2), jnp.ones((1, 1))
    chex.assert_trees_all_equal(alike(x, y), (x, jnp.ones((2, 2))))


def test_elsewhere_nothing_happens():
    tree = {"a": jnp.ones(2), "b": None}
    assert vary_alike(tree) is tree
