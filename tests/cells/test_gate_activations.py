"""Other functions in the place of σ and tanh: what the equations become is worked out by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    CoupledLSTM,
    GRUResetBefore,
    LayerNormLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
)
from seqnets.recurrence import Execution, unroll

B, D, H = 3, 2, 4
GATE = 0.25


def half_open(x):
    """A gate that never moves."""
    return jnp.full_like(x, GATE)


def double(x):
    return 2 * x


CELLS = [
    cell(H, activation=double, gate_activation=half_open, **options)
    for cell, options in (
        (LSTM, {}),
        (CoupledLSTM, {}),
        (PeepholeLSTM, {}),
        (ProjectedLSTM, {"hidden": 6}),
        (LayerNormLSTM, {}),
        (GRU, {}),
        (GRUResetBefore, {}),
    )
]


@pytest.fixture(params=CELLS, ids=lambda cell: type(cell).__name__)
def cell(request):
    return request.param


def draw(cell, rng, *time):
    """Parameters, carry, and inputs with nothing left at zero."""
    params = cell.init(jax.random.key(0), D)
    tree = (params, cell.initial_carry(params, B, "float32"), jnp.zeros((B, *time, D)))
    return jax.tree.map(lambda a: jnp.asarray(a + rng.normal(size=a.shape), "float32"), tree)


def norm(z):
    """Zero mean and unit variance over the last axis."""
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)


def gru_output(cell, p, carry, x):
    """``h`` after one step of a GRU whose gates are all `GATE`, and whose tanh is a doubling."""
    n_x, w_hn = (x @ p.w_x + p.b)[:, -H:], p.w_h[:, -H:]
    if isinstance(cell, GRU):
        n = 2 * (n_x + GATE * (carry.h @ w_hn + p.b_h[-H:]))
    else:
        n = 2 * (n_x + (GATE * carry.h) @ w_hn)
    return (1 - GATE) * n + GATE * carry.h


def lstm_output(cell, p, carry, x):
    """The same of an LSTM."""
    normalized = isinstance(cell, LayerNormLSTM)
    if normalized:
        z = norm(x @ p.w_x) * p.extra.scale_x + norm(carry.h @ p.w_h) * p.extra.scale_h + p.extra.b
    else:
        z = x @ p.w_x + carry.h @ p.w_h + p.b
    coupled = isinstance(cell, CoupledLSTM)
    g = np.split(z, cell.gates, -1)[1 if coupled else 2]
    c = GATE * carry.c + (1 - GATE if coupled else GATE) * 2 * g
    h = GATE * 2 * (norm(c) * p.extra.scale_c + p.extra.b_c if normalized else c)
    return h @ p.w_p if isinstance(cell, ProjectedLSTM) else h


def test_they_are_where_the_equations_have_them(cell, rng):
    params, carry, x = draw(cell, rng)
    output = gru_output if isinstance(cell, GRU | GRUResetBefore) else lstm_output
    want = output(cell, *jax.tree.map(np.asarray, (params, carry, x)))
    np.testing.assert_allclose(cell.step(params, carry, x)[1], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS[::5], ids=lambda cell: type(cell).__name__)
def test_every_strategy_has_their_gradients(cell, rng):
    """With the piecewise linear gates of older Keras layers."""
    cell = dataclasses.replace(cell, gate_activation=jax.nn.hard_sigmoid, activation=jax.nn.relu)

    def loss(strategy, params, carry, xs):
        final, ys = unroll(cell, params, carry, xs, execution=Execution(strategy))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, ys)))

    with jax.enable_x64(True):
        point = jax.tree.map(lambda a: a.astype("float64"), draw(cell, rng, 5))
        got, want = (
            jax.value_and_grad(lambda *at, way=way: loss(way, *at), (0, 1, 2))(*point)
            for way in ("fused", "scan")
        )
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)
