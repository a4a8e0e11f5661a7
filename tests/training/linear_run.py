"""A run with all that a state can hold: a linear model with noise, a carry, and a schedule."""

import json
import os
import signal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.data.source import WHOLE, rows_of, shapes_of
from seqnets.devices import DataParallel
from seqnets.reduction import Weighted, weighted
from seqnets.runs import Checkpointing, CheckpointStore, MetricsFile
from seqnets.training import Hook, Limits, LossOutput, Snapshot, make_train_step, means, train

ROWS, FEATURES = 4, 3
EVERY = {"report_every": 5, "evaluate_every": 8, "checkpoint_every": 6}


class Carry(NamedTuple):
    mean: jax.Array


def loss_fn(params, batch, given):
    """Squared error of a linear model that sees a running mean, and noise on its inputs."""
    x, y, weight = batch
    noise = jax.vmap(lambda key: jax.random.normal(key, (FEATURES,)))(given.keys.rows)
    mean = 0.5 * given.carry.mean + 0.5 * x.mean(axis=1)
    error = (x + 0.1 * noise) @ params["w"] + params["b"] * mean - y
    absolute = weighted(abs(error), weight)
    return LossOutput(weighted(error**2, weight), Carry(mean), {"absolute": absolute})


def scale_by_remaining():
    """Steps that shrink as the run goes on: a schedule over its nominal length."""

    def update(updates, state, params=None, *, progress, **extra):
        return jax.tree.map(lambda u: u * (1 - progress), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


OPTIMIZER = optax.chain(optax.adam(0.05), scale_by_remaining())


def batch_of(k):
    rng = np.random.default_rng([11, k])
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = x.sum(axis=1) + rng.normal(size=ROWS).astype(np.float32)
    return x, y, rng.integers(0, 3, ROWS).astype(np.float32)


class Batches:
    """A `Source` of batches that are made by number."""

    def __init__(self, make, shapes=None):
        self.make = make
        self.shapes = (shapes_of(batch_of(0)),) if shapes is None else shapes

    def batch(self, k, share=WHOLE):
        batch = self.make(k)
        return batch if share == WHOLE else rows_of(batch, share.rows(ROWS))


class Figures:
    """An `Evaluation` of the parameters alone."""

    figures = staticmethod(means)

    def __init__(self, of_params, metric="loss", higher_is_better=False):
        self.of_params, self.metric, self.higher_is_better = of_params, metric, higher_is_better

    def sums(self, weights):
        return self.of_params(weights.params)


def distance(params):
    """How far the weights are from the true ones."""
    return {"loss": Weighted(np.float64(np.square(params["w"] - 1).sum()), np.float64(1))}


def new_state(seed=5, step=None):
    params = {"w": jnp.zeros(FEATURES), "b": jnp.zeros(1)}
    step = step or make_train_step(loss_fn, OPTIMIZER)
    return step.init(params, jax.random.key(seed), carry=Carry(jnp.zeros(ROWS)))


def run(*hooks, **changes):
    """`train`, with these settings changed; batches, evaluations, and devices by short names."""
    step = changes.pop("step", None) or make_train_step(
        changes.pop("loss_fn", loss_fn), OPTIMIZER, accumulate=changes.pop("accumulate", 1)
    )
    devices = changes.pop("devices", 2)
    evaluate = changes.pop("evaluate", distance)
    settings = {
        "start": Snapshot(new_state()),
        "source": Batches(changes.pop("batch", batch_of)),
        "limits": Limits(**{"steps": 20, **EVERY, **changes.pop("limits", {})}),
        "evaluation": evaluate and Figures(evaluate),
        "layout": DataParallel(jax.local_devices()[:devices]),
    }
    return train(step, **{**settings, **changes}, hooks=hooks)


def run_in(folder, *hooks, resume=False, **changes):
    """`run` with files in a folder, from the start or from the newest checkpoint."""
    store = CheckpointStore(folder / "checkpoints")
    start = Snapshot(changes.pop("state", None) or new_state())
    if resume:
        start = store.restore(jax.eval_shape(lambda: start.state), store.newest())
    metrics = MetricsFile(folder / "metrics.jsonl", start.progress.step if resume else None)
    return run(metrics, Checkpointing(store), *hooks, start=start, **changes)


class Recorder(Hook):
    """Keeps all that it is told."""

    def __init__(self):
        self.records, self.saves, self.fractions, self.ends = [], [], [], 0

    def on_step(self, progress, fraction):
        self.fractions.append(fraction)

    def on_record(self, record):
        self.records.append(record)

    def on_checkpoint(self, snapshot, rank):
        assert int(snapshot.state.step) == snapshot.progress.step
        self.saves.append((snapshot.progress.step, rank is not None))

    def on_end(self):
        self.ends += 1

    def of(self, split):
        return [record for record in self.records if record["split"] == split]

    def steps(self, split):
        return [record["step"] for record in self.of(split)]


class At(Hook):
    """Does something after a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step(self, progress, fraction):
        if progress.step == self.step:
            self.act()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def records_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_files(folder, other):
    """The records byte for byte, and which checkpoints are the newest and the best."""
    files = [(path / "metrics.jsonl").read_bytes() for path in (folder, other)]
    stores = [CheckpointStore(path / "checkpoints") for path in (folder, other)]
    assert files[0] == files[1]
    assert stores[0].newest() == stores[1].newest()
    assert stores[0].best() == stores[1].best()


def assert_same_state(got, expected):
    """The same trees, bit for bit."""
    raw = [s._replace(key=jax.random.key_data(s.key)) for s in (got, expected)]
    chex.assert_trees_all_equal_structs(*raw)
    chex.assert_trees_all_equal(*raw, strict=True)


def spoiled(*numbers, by=np.nan):
    """The batches, some of them with inputs multiplied."""

    def batch(k):
        x, y, weight = batch_of(k)
        return (x * by if k in numbers else x), y, np.ones_like(weight)

    return batch


def without(batch, first, last):
    """Batches as if those numbers had never been."""
    return lambda k: batch(k if k < first else k + last - first + 1)
