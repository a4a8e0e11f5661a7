"""Evaluation: sums of batches, devices, and processes add up to those of all rows."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.data.source import WHOLE, Share, rows_of
from seqnets.devices import DataParallel
from seqnets.reduction import Weighted, weighted
from seqnets.training import ONE, LossEvaluation, LossOutput, Weights, means

ROWS, D, BATCHES = 7, 3, 4


def loss_fn(params, batch, given):
    """With a carry, a metric, and weights of rows; no key is given."""
    assert given.keys is None
    carry = 0.5 * given.carry + batch["x"].sum(1)
    error = batch["x"] @ params["w"] + given.variables["bias"] + 0.1 * carry
    metrics = {"largest": weighted(jnp.abs(error), batch["weight"])}
    return LossOutput(weighted(error**2, batch["weight"]), carry, metrics)


def batches():
    rng = np.random.default_rng(51)
    return [
        {
            "x": rng.normal(size=(ROWS, D)).astype("f4"),
            "weight": rng.integers(0, 3, ROWS).astype("f4"),
        }
        for _ in range(BATCHES)
    ]


WEIGHTS = Weights({"w": jnp.arange(1.0, D + 1)}, {"bias": jnp.float32(0.5)})


def oracle():
    """NumPy, in double precision, one row after the other."""
    squares = largest = weight = 0.0
    for row in range(ROWS):
        carry = 1.0
        for batch in batches():
            x, w = batch["x"][row].astype(float), float(batch["weight"][row])
            carry = 0.5 * carry + x.sum()
            error = x @ np.arange(1.0, D + 1) + 0.5 + 0.1 * carry
            squares, largest, weight = squares + w * error**2, largest + w * abs(error), weight + w
    return {"loss": Weighted(squares, weight), "largest": Weighted(largest, weight)}


@dataclasses.dataclass(frozen=True)
class OfProcess(DataParallel):
    """The devices of one process among several."""

    part: Share = WHOLE

    @property
    def share(self):
        return self.part


def evaluation(layout, **settings):
    def of_share(share):
        return (rows_of(batch, share.rows(ROWS)) for batch in batches())

    def carry(params, rows):
        return jnp.ones(rows)

    return LossEvaluation(loss_fn, of_share, rows=ROWS, layout=layout, carry=carry, **settings)


def add(*sums):
    return jax.tree.map(lambda *parts: sum(parts), *sums)


@pytest.mark.parametrize("devices", [None, 1, 2, 4])
def test_sums_over_all_batches(devices):
    layout = ONE if devices is None else DataParallel(jax.devices()[:devices])
    sums = evaluation(layout).sums(WEIGHTS)
    # Sums of float32 over seven rows; from there on in double precision.
    chex.assert_trees_all_close(sums, oracle(), rtol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {np.dtype("float64")}


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_shares_of_several_processes_add_up(processes):
    """Seven rows do not divide: the last shares are filled up with rows without weight."""
    shares = [Share(index, processes) for index in range(processes)]
    sums = [evaluation(OfProcess(jax.devices()[:2], part=share)).sums(WEIGHTS) for share in shares]
    assert len({float(part["loss"].weight) for part in sums}) > 1
    chex.assert_trees_all_close(add(*sums), oracle(), rtol=1e-6)


def test_every_evaluation_begins_anew():
    measured = evaluation(ONE)
    first, second = (measured.sums(WEIGHTS) for _ in range(2))
    chex.assert_trees_all_equal(first, second)


def test_it_is_compiled_once():
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(lambda p, b, g: loss_fn(p, b, g), n=1)
    measured = LossEvaluation(
        traced, lambda share: batches(), rows=ROWS, carry=lambda params, rows: jnp.ones(rows)
    )
    for _ in range(3):
        measured.sums(WEIGHTS)


def test_figures_and_what_is_best():
    plain = evaluation(ONE)
    assert (plain.metric, plain.higher_is_better) == ("loss", False)
    want = {name: part.total / part.weight for name, part in oracle().items()}
    assert plain.figures(oracle()) == pytest.approx(want)
    named = evaluation(ONE, metric="f1", higher_is_better=True, figures=lambda sums: {"f1": 0.5})
    assert (named.metric, named.higher_is_better) == ("f1", True)
    assert named.figures({}) == {"f1": 0.5}


def test_means_of_nothing_are_zero():
    assert means({"loss": Weighted(np.float64(3), np.float64(0))}) == {"loss": 0.0}
    assert means({}) == {}
