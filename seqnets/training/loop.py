"""The one training loop: steps until a limit, with reports, evaluations and checkpoints between.

Everything that a run leaves behind is written by hooks. What they are given does not depend on
the clock (as long as the run is bounded by steps), so the same seed gives the same records.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqnets.reduction import Weighted
from seqnets.training.interruption import Interruption
from seqnets.training.parallel import DataParallel
from seqnets.training.state import StepInfo, TrainState
from seqnets.training.step import LossFn
from seqnets.typing import PyTree

__all__ = ["Hook", "Job", "Limits", "NonFiniteError", "Outcome", "Progress", "train"]

STEPS_IN_FLIGHT = 2  # how far the host may run ahead: enough to hide its own work


class NonFiniteError(ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a run ends, and how often it reports, in steps.

    Attributes:
      max_steps: steps in all, or None.
      max_seconds: seconds of training in all, or None: steps only, without compilation,
        evaluation and the copies for checkpoints.
      report_every: steps between reports.
      evaluate_every: steps between evaluations.
      checkpoint_every: steps between checkpoints.
    """

    max_steps: int | None
    max_seconds: float | None
    report_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 500

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the run done, at most 1: the larger of the two limits' fractions."""
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_seconds = seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(by_steps, by_seconds))


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
    """

    loss_fn: LossFn
    optimizer: Any
    batch: Callable[[int], PyTree]
    evaluate: Callable[[PyTree], dict[str, float]] | None
    limits: Limits
    layout: DataParallel


@dataclasses.dataclass
class Progress:
    """What the loop must remember, beside the state, to go on as if it had not stopped."""

    step: int = 0
    training_seconds: float = 0.0
    compilation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """``name: [total, weight]`` since the last report."""
    gradient_norms: list[float] = dataclasses.field(default_factory=list)
    """Norms since the last report."""
    validation: dict[str, float] = dataclasses.field(default_factory=dict)
    """The newest evaluation."""


class Hook:
    """Something that watches a run; every method may be left out."""

    def on_step(self, progress: Progress, fraction: float) -> None:
        """After every step; must not wait for the devices."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A report: ``{"step": k, "split": "train" | "validation", name: value, ...}``."""

    def on_checkpoint(self, state: TrainState, progress: Progress, *, evaluated: bool) -> None:
        """A host copy of the state to keep; ``evaluated`` if ``progress.validation`` is of it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the final host state, what was counted, and the signal that stopped it."""

    state: TrainState
    progress: Progress
    signal: int | None


def train(
    job: Job, state: TrainState, hooks: Sequence[Hook], progress: Progress | None = None
) -> Outcome:
    """Train until a limit is reached or a signal asks to stop.

    Args:
      job: what to do.
      state: host state to start from, with rows in one piece ([B, ...]).
      hooks: who is told.
      progress: where to go on, as given to `Hook.on_checkpoint`; None at the start.

    Returns:
      The final state, on the host.

    Raises:
      NonFiniteError: if loss or gradient stops being finite. The parameters were not touched by
        such a step; the newest checkpoint holds them.
      ValueError: if no limit is set, or the devices do not divide the rows.
    """
    if not (job.limits.max_steps or job.limits.max_seconds):
        raise ValueError("limits: expected max_steps or max_seconds, got neither")
    return _Run(job, list(hooks), progress or Progress()).run(state)


class _Run:
    """One call of `train`: the loop and its bookkeeping."""

    def __init__(self, job: Job, hooks: list[Hook], progress: Progress) -> None:
        self.job, self.hooks, self.progress = job, hooks, progress
        self.infos: list[StepInfo] = []

    def run(self, host_state: TrainState) -> Outcome:
        job, limits, progress = self.job, self.job.limits, self.progress
        state = job.layout.place(host_state)
        step = self._compile(state)
        saved = evaluated = progress.step
        with Interruption() as interruption:
            while interruption.signal is None:
                fraction = limits.progress(progress.step, progress.training_seconds)
                if fraction >= 1.0:
                    break
                state = self._advance(step, state, fraction)
                at = progress.step
                if at % limits.report_every == 0:
                    self._report()
                if at % limits.evaluate_every == 0:
                    self._evaluate(state)
                    evaluated = at
                if at % limits.checkpoint_every == 0 or evaluated == at:
                    self._save(state, evaluated=evaluated == at)
                    saved = at
            if self.infos:
                self._drain()
            if interruption.signal is None and evaluated != progress.step:
                self._report()
                self._evaluate(state)
                evaluated, saved = progress.step, -1
            if saved != progress.step:
                self._save(state, evaluated=evaluated == progress.step)
            return Outcome(job.layout.gather(state), progress, interruption.signal)

    def _compile(self, state: TrainState) -> Callable:
        began = time.perf_counter()
        step = self.job.layout.train_step(self.job.loss_fn, self.job.optimizer)
        batch = self.job.layout.split(self.job.batch(self.progress.step))
        compiled = step.lower(state, batch, np.float32(0)).compile()
        self.progress.compilation_seconds += time.perf_counter() - began
        return compiled

    def _advance(self, step: Callable, state: TrainState, fraction: float) -> TrainState:
        began = time.perf_counter()
        batch = self.job.layout.split(self.job.batch(self.progress.step))
        state, info = step(state, batch, np.float32(fraction))
        self.infos.append(info)
        self.progress.step += 1
        if len(self.infos) > STEPS_IN_FLIGHT:
            jax.block_until_ready(self.infos[-1 - STEPS_IN_FLIGHT].finite)
        last = self.progress.step % self.job.limits.report_every == 0
        if last:
            jax.block_until_ready(info.finite)
        self.progress.training_seconds += time.perf_counter() - began
        for hook in self.hooks:
            hook.on_step(self.progress, fraction)
        return state

    def _drain(self) -> None:
        """Bring the sums of the steps since the last time to the host."""
        infos, self.infos = jax.device_get(self.infos), []
        first = self.progress.step - len(infos) + 1
        for number, info in enumerate(infos, first):
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

    def _report(self) -> None:
        self._drain()
        sums, norms = self.progress.sums, self.progress.gradient_norms
        if not norms:
            return
        means = {name: mean_of(*pair) for name, pair in sums.items()}
        norm = math.fsum(norms) / len(norms)
        self.progress.sums, self.progress.gradient_norms = {}, []
        self._record("train", {**means, "gradient_norm": norm})

    def _evaluate(self, state: TrainState) -> None:
        self._drain()
        if self.job.evaluate is None:
            return
        began = time.perf_counter()
        self.progress.validation = self.job.evaluate(state.params)
        self.progress.evaluation_seconds += time.perf_counter() - began
        self._record("validation", self.progress.validation)

    def _record(self, split: str, values: dict[str, float]) -> None:
        for hook in self.hooks:
            hook.on_record({"step": self.progress.step, "split": split, **values})

    def _save(self, state: TrainState, *, evaluated: bool) -> None:
        self._drain()
        host = self.job.layout.gather(state)
        for hook in self.hooks:
            hook.on_checkpoint(host, self.progress, evaluated=evaluated)


def mean_of(total: float, weight: float) -> float:
    """``total / weight``, 0 where nothing was counted."""
    return total / weight if weight else 0.0


def sums_to_host(sums: Sequence[dict[str, Weighted]]) -> dict[str, Weighted]:
    """Add the sums of many evaluation steps, in double precision, in their order."""
    totals: dict[str, Weighted] = {}
    for part in jax.device_get(list(sums)):
        for name, value in part.items():
            pair = Weighted(np.float64(value.total), np.float64(value.weight))
            totals[name] = totals[name] + pair if name in totals else pair
    return totals
