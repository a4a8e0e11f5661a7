"""The one training loop: steps until a limit, with reports, evaluations and checkpoints between.

Everything that a run leaves behind is written by hooks. When they are called, and with what,
depends on the step alone (as long as the run is bounded by steps), so the same seed gives the
same records, and a run stopped at step k and resumed gives those of the run that went straight
on. Two things are not equal: the seconds counted, and that the end of a run is always evaluated,
so that one stopped by ``max_steps`` has a validation record there, due or not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqnets.reduction import Weighted
from seqnets.training.hooks import Hook, Limits, Progress
from seqnets.training.interruption import Interruption
from seqnets.training.parallel import DataParallel
from seqnets.training.state import StepInfo, TrainState
from seqnets.training.step import LossFn
from seqnets.typing import PyTree

__all__ = [
    "Hook",
    "Job",
    "Limits",
    "NonFiniteError",
    "Outcome",
    "Progress",
    "sums_to_host",
    "train",
]

STEPS_IN_FLIGHT = 2  # how far the host may run ahead: enough to hide its own work


class NonFiniteError(ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train, on what, and how long.

    Attributes:
      loss_fn: loss of one batch, per device.
      optimizer: Optax transformation.
      batch: batch number k, host arrays [B, ...]; a pure function of k.
      evaluate: metrics of the given parameters on held-out data, or None.
      limits: when to stop, report, evaluate and save.
      layout: the devices.
      accumulate: parts into which the rows of each device are cut.
    """

    loss_fn: LossFn
    optimizer: Any
    batch: Callable[[int], PyTree]
    evaluate: Callable[[PyTree], dict[str, float]] | None
    limits: Limits
    layout: DataParallel
    accumulate: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the final host state, what was counted, and the signal that stopped it."""

    state: TrainState
    progress: Progress
    signal: int | None


def train(
    job: Job, state: TrainState, hooks: Sequence[Hook], progress: Progress | None = None
) -> Outcome:
    """Train until a limit is reached or a signal asks to stop, and save.

    The end is evaluated, but for a run that a signal stopped: that is in a hurry.

    Args:
      job: what to do.
      state: host state to start from, with rows in one piece ([B, ...]).
      hooks: who is told.
      progress: where to go on, as given to `Hook.on_checkpoint`; None at the start.

    Returns:
      The final state, on the host.

    Raises:
      NonFiniteError: if loss or gradient stops being finite. The step that met it changed
        nothing; it is raised before the next record, evaluation or checkpoint is made.
      ValueError: if ``progress`` and ``state`` are of different steps, or the devices do not
        divide the rows.
    """
    progress = progress or Progress()
    if progress.step != int(state.step):
        raise ValueError(
            f"progress: expected that of the state's step {int(state.step)}, got {progress.step}"
        )
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.on_end)
        return _Run(job, hooks, state, progress).run()


class _Run:
    """One call of `train`: the loop and its bookkeeping."""

    def __init__(
        self, job: Job, hooks: Sequence[Hook], state: TrainState, progress: Progress
    ) -> None:
        self.job, self.hooks, self.progress = job, hooks, progress
        self.state = job.layout.place(state)
        self.saved = progress.step > 0
        self.infos: list[StepInfo] = []
        self.mark = time.perf_counter()

    def run(self) -> Outcome:
        limits, progress = self.job.limits, self.progress
        with Interruption() as interruption:
            while not (self._is(limits.finished) or interruption.signal):
                self._advance()
                if self._is(limits.reports):
                    self._report()
                if progress.step % limits.evaluate_every == 0:
                    self._evaluate()
                due = progress.step % limits.checkpoint_every == 0 or progress.evaluated
                if due and not self._is(limits.finished):
                    self._save()
            signal = interruption.signal
            if not (signal or progress.evaluated):
                self._evaluate()
            if not self.saved:
                self._save()
        return Outcome(self.job.layout.gather(self.state), progress, signal)

    def _is(self, question: Callable[[int, float], bool]) -> bool:
        return question(self.progress.step, self.progress.training_seconds)

    def _lap(self) -> float:
        """Seconds since the last call. Each is added to the account of what was done in it."""
        now = time.perf_counter()
        lap, self.mark = now - self.mark, now
        return lap

    @functools.cached_property
    def _step(self) -> Callable:
        layout, job = self.job.layout, self.job
        step: Any = layout.train_step(job.loss_fn, job.optimizer, job.accumulate)
        batch = layout.split(job.batch(self.progress.step))
        compiled = step.lower(self.state, batch, np.float32(0)).compile()
        self.progress.compilation_seconds += self._lap()
        return compiled

    def _advance(self) -> None:
        step, progress = self._step, self.progress
        fraction = self.job.limits.progress(progress.step, progress.training_seconds)
        batch = self.job.layout.split(self.job.batch(progress.step))
        self.state, info = step(self.state, batch, np.float32(fraction))
        self.saved = False
        self.infos.append(info)
        if len(self.infos) > STEPS_IN_FLIGHT:
            jax.block_until_ready(self.infos[-1 - STEPS_IN_FLIGHT].finite)
        progress.step += 1
        progress.training_seconds += self._lap()
        for hook in self.hooks:
            hook.on_step(progress, fraction)

    def _drain(self) -> None:
        """Wait for the devices, and add up the steps since the last time."""
        infos, self.infos = jax.device_get(self.infos), []
        for number, info in enumerate(infos, self.progress.step - len(infos) + 1):
            if not info.finite:
                raise NonFiniteError(
                    f"loss or gradient is not finite at step {number} (loss "
                    f"{float(info.loss.mean())}, gradient norm {float(info.gradient_norm)}); "
                    "try a smaller optimizer.learning_rate or optimizer.clip_norm"
                )
            self.progress.gradient_norms.append(float(info.gradient_norm))
            for name, part in {"loss": info.loss, **info.metrics}.items():
                total = self.progress.sums.setdefault(name, [0.0, 0.0])
                total[0] += float(part.total)
                total[1] += float(part.weight)
        self.progress.training_seconds += self._lap()

    def _report(self) -> None:
        self._drain()
        sums, norms = self.progress.sums, self.progress.gradient_norms
        self.progress.sums, self.progress.gradient_norms = {}, []
        means = {name: total / weight if weight else 0.0 for name, (total, weight) in sums.items()}
        self._record("train", {**means, "gradient_norm": math.fsum(norms) / len(norms)})

    def _evaluate(self) -> None:
        self._drain()
        if self.job.evaluate is None:
            return
        values = self.job.evaluate(self.state.params)
        self.progress.validation = {name: float(value) for name, value in values.items()}
        self.progress.validation_step = self.progress.step
        self.saved = False
        self.progress.evaluation_seconds += self._lap()
        self._record("validation", self.progress.validation)

    def _record(self, split: str, values: dict[str, float]) -> None:
        for hook in self.hooks:
            hook.on_record({"step": self.progress.step, "split": split, **values})

    def _save(self) -> None:
        self._drain()
        host = self.job.layout.gather(self.state)
        for hook in self.hooks:
            hook.on_checkpoint(host, self.progress, evaluated=self.progress.evaluated)
        self.saved = True
        self._lap()


def sums_to_host(sums: Sequence[dict[str, Weighted]]) -> dict[str, Weighted]:
    """Add the sums of many evaluation steps, over devices too, in double precision and in order."""
    totals: dict[str, Weighted] = {}
    for part in jax.device_get(list(sums)):
        for name, value in part.items():
            pair = jax.tree.map(lambda x: np.sum(x, dtype=np.float64), value)
            totals[name] = totals[name] + pair if name in totals else pair
    return totals
