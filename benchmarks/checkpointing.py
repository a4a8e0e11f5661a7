"""What saving costs: the share of training time that a checkpoint every 100 steps takes.

    python benchmarks/checkpointing.py [--hidden 2048] [--layers 3] [--batch 16] [--steps 32]

A language model of LSTM layers (100 million parameters as it stands) is trained with Adam. Half way
through, one checkpoint is saved in the background. Its cost is the time of the steps from there on,
beyond that of as many steps before: what the loop stands still for the copy to the host, and what
the steps are slowed down by hashing and writing beside them. It is printed as a share of 100 steps,
by the clock and in seconds of all cores: on a machine that others use, too, the latter says more.
"""

import argparse
import json
import tempfile
import time

import jax
import numpy as np
import optax

from seqnets.applications.language.network import LanguageNetwork, initial_carry
from seqnets.applications.language.objective import language_loss
from seqnets.cells import LSTM
from seqnets.data.source import WHOLE, shapes_of
from seqnets.data.text import TextBatch
from seqnets.devices import DataParallel
from seqnets.modules import Layer
from seqnets.runs import Checkpointing, CheckpointStore
from seqnets.training import Hook, Limits, Snapshot, make_train_step, train

VOCABULARY = 256
EVERY = 100


class Clock(Hook):
    """When each step was begun, by the clock and in seconds of all cores."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_step(self, progress, fraction) -> None:
        self.times.append((time.perf_counter(), time.process_time()))


class Same:
    """A source of one batch, again and again."""

    def __init__(self, batch: TextBatch) -> None:
        self.shapes, self._batch = (shapes_of(batch),), batch

    def batch(self, k, share=WHOLE) -> TextBatch:
        return self._batch


class Timed(Checkpointing):
    """Saves at one step only, and notes when it began and was done."""

    def __init__(self, store: CheckpointStore, step: int) -> None:
        super().__init__(store)
        self.step = step
        self.done = 0.0
        save = store.save

        def timed(*arguments) -> None:
            save(*arguments)
            self.done = time.perf_counter()

        store.save = timed  # type: ignore[method-assign]

    def on_checkpoint(self, snapshot, rank) -> None:
        if snapshot.progress.step == self.step:
            self.began = time.perf_counter()
            super().on_checkpoint(snapshot, rank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("hidden", 2048), ("layers", 3), ("batch", 16), ("steps", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--updates", type=int, default=16, help="half before, half after saving")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments), indent=2))


def measure(arguments: argparse.Namespace) -> dict:
    """Times in seconds."""
    layers = (Layer(LSTM(arguments.hidden)),) * arguments.layers
    model = LanguageNetwork(VOCABULARY, arguments.hidden, layers, tied=True)
    rows, shape = arguments.batch, (arguments.batch, arguments.steps)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, shape).astype(np.int32)
    batch = TextBatch(tokens, tokens, np.zeros(shape, bool))
    params = jax.jit(model.init)(jax.random.key(0), tokens[:1, :1])["params"]
    step = make_train_step(language_loss(model), optax.adam(1e-4))
    state = step.init(params, jax.random.key(0), carry=initial_carry(model, params, rows))
    half, clock = arguments.updates // 2, Clock()
    limits = Limits(arguments.updates, evaluate_every=10**9, checkpoint_every=half)
    layout = DataParallel(jax.local_devices()[:1])
    with tempfile.TemporaryDirectory() as folder:
        timed = Timed(CheckpointStore(folder), half)
        start, hooks = Snapshot(state), [clock, timed]
        train(step, start, Same(batch), limits=limits, layout=layout, hooks=hooks)
    return figures(params, np.diff(clock.times, axis=0), half, timed)


def figures(params, laps: np.ndarray, half: int, timed: Timed) -> dict:
    """The first lap after the checkpoint holds the copy; the first of all fill the queue."""
    plain = np.median(laps[2 : half - 1], axis=0)
    cost = np.sum(laps[half - 1 :] - plain, axis=0)
    share = 100 * cost / (EVERY * plain)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "device": jax.devices()[0].device_kind,
        "writing_seconds": round(timed.done - timed.began, 3),
        "wall": summary(plain[0], cost[0], share[0]),
        "cores": summary(plain[1], cost[1], share[1]),
    }


def summary(step: float, cost: float, share: float) -> dict[str, float]:
    figures = {"step_seconds": step, "cost_seconds": cost, f"share_every_{EVERY}_percent": share}
    return {name: round(float(value), 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
