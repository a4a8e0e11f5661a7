"""Which cells need one product only: read off their equations, never claimed."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    CoupledLSTM,
    Elman,
    LayerNormGRU,
    LayerNormLSTM,
    MGUResetAfter,
    PeepholeLSTM,
    ProjectedLSTM,
)
from seqnets.cells.elman import ElmanCarry
from seqnets.recurrence import Execution, unroll
from seqnets.recurrence.adds_products import adds_products

B, T, D, H = 2, 5, 3, 4
TOGETHER = (LSTM(H), CoupledLSTM(H), Elman(H), PeepholeLSTM(H), ProjectedLSTM(H, hidden=6))
APART = (GRU(H), MGUResetAfter(H), LayerNormLSTM(H), LayerNormGRU(H))


def added(cell):
    params = cell.init(jax.random.key(0), D)
    return adds_products(cell, params, cell.initial_carry(params, B, "float32"), "float32")


@pytest.mark.parametrize("cell", TOGETHER, ids=lambda cell: type(cell).__name__)
def test_the_sum_alone(cell):
    assert added(cell)


@pytest.mark.parametrize("cell", APART, ids=lambda cell: type(cell).__name__)
def test_the_products_apart(cell):
    assert not added(cell)


@dataclasses.dataclass(frozen=True)
class Skewed(Elman):
    """Adds the products, and looks at one of them again."""

    again: str = "h"

    def pointwise(self, extra, z_x, z_h, carry):
        z = z_x + z_h
        return ElmanCarry(jnp.tanh(z) + 0.5 * jnp.sin(z_h if self.again == "h" else z_x))


@dataclasses.dataclass(frozen=True)
class Handed(Elman):
    """Hands a product out as it is."""

    def pointwise(self, extra, z_x, z_h, carry):
        return ElmanCarry(z_h)


@dataclasses.dataclass(frozen=True)
class Doubled(Elman):
    """Adds one product to itself."""

    def pointwise(self, extra, z_x, z_h, carry):
        return ElmanCarry(jnp.tanh(z_x + z_x))


@pytest.mark.parametrize(
    "cell",
    [Skewed(H), Skewed(H, again="x"), Handed(H), Doubled(H)],
    ids=lambda cell: repr(cell)[:9],
)
def test_a_cell_that_looks_at_more_is_run_as_it_is_written(cell, rng):
    assert not added(cell)
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=p.shape), "float64"),
            cell.init(jax.random.key(0), D),
        )
        xs = jnp.asarray(rng.normal(size=(B, T, D)))
        got, want = (
            unroll(cell, params, None, xs, execution=Execution(way)) for way in ("fused", "scan")
        )
        chex.assert_trees_all_close(got, want, rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class Counted(Elman):
    """Counts axes from the front."""

    def pointwise(self, extra, z_x, z_h, carry):
        return ElmanCarry(jnp.concatenate(jnp.split(z_x + z_h, 2, axis=1), axis=1))


def test_a_pointwise_function_that_does_not_run_on_one_row_is_told_how_to(rng):
    with pytest.raises(ValueError, match=r"Counted\.pointwise: .* on one row.*axis=-1"):
        added(Counted(H))


@dataclasses.dataclass(frozen=True)
class Returns(Elman):
    """Gives something of its own."""

    what: str = "tuple"

    def pointwise(self, extra, z_x, z_h, carry):
        h = jnp.tanh(z_x + z_h)
        return {"tuple": (h,), "array": h, "none": None, "wide": ElmanCarry(jnp.append(h, h))}[
            self.what
        ]


@pytest.mark.parametrize("what", ["tuple", "array", "none", "wide"])
def test_a_pointwise_function_must_give_a_carry(what):
    with pytest.raises(TypeError, match=r"Returns\.pointwise: expected a carry of shapes Elman"):
        added(Returns(H, what=what))
