"""The one training loop: steps until a limit, with reports, evaluations and checkpoints between.

Everything that a run leaves behind is written by hooks. When they are called, and with what,
depends on the step alone (as long as the run is bounded by steps), so the same seed gives the
same records, and a run stopped at step k and resumed gives those of the run that went straight
on. Three things are not equal: the seconds counted; that the end of a run is always evaluated, so
that one stopped by ``max_steps`` has a validation record there, due or not; and that a run which
was stopped between two checkpoints and later goes back may go back to where it was stopped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqnets.reduction import Weighted
from seqnets.training.hooks import Hook, Limits, Progress
from seqnets.training.interruption import AbandonedError, Interruption
from seqnets.training.memory import Memory, memory_of
from seqnets.training.parallel import DataParallel
from seqnets.training.processes import Agreement, add_up, meet, passing_words
from seqnets.training.recovery import NonFiniteError, Recovery, Verdict
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
    "means",
    "sums_to_host",
    "train",
]

STEPS_IN_FLIGHT = 2  # how far the host may run ahead: enough to hide its own work

logger = logging.getLogger(__name__)


def means(sums: dict[str, Weighted]) -> dict[str, float]:
    """The mean of each; 0 where the weight is 0."""
    return {name: _ratio(float(part.total), float(part.weight)) for name, part in sums.items()}


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else 0.0


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train, on what, and how long.

    Attributes:
      loss_fn: loss of one batch, per device.
      optimizer: Optax transformation.
      batch: batch number k, host arrays [B, ...]; a pure function of k. Where there are several
        processes, those of its rows that are this process's, see `DataParallel.rows`.
      evaluate: sums of the given parameters over held-out data, float64 on the host as from
        `sums_to_host`, or None. Where there are several processes, each over a share.
      limits: when to stop, report, evaluate and save.
      layout: the devices.
      accumulate: parts into which the rows of each device are cut.
      recovery: what to do about steps that are not finite, and about spikes of the loss.
      figures: what is recorded of the sums of an evaluation, those of all processes.
    """

    loss_fn: LossFn
    optimizer: Any
    batch: Callable[[int], PyTree]
    evaluate: Callable[[PyTree], dict[str, Weighted]] | None
    limits: Limits
    layout: DataParallel
    accumulate: int = 1
    recovery: Recovery = dataclasses.field(default_factory=Recovery)
    figures: Callable[[dict[str, Weighted]], dict[str, float]] = means


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the final host state, what was counted, and the signal that stopped it.

    The memory is None where no step was compiled.
    """

    state: TrainState
    progress: Progress
    signal: int | None
    memory: Memory | None = None


def train(
    job: Job, state: TrainState, hooks: Sequence[Hook], progress: Progress | None = None
) -> Outcome:
    """Train until a limit is reached or a signal asks to stop, and save.

    The end is evaluated, but for a run that a signal stopped: that is in a hurry. A signal in
    an evaluation gives it up; the resumed run then begins with it.

    Several processes call it alike, and do the same things at the same steps: they go by the
    clock of process 0, and a signal to one is a signal to all. An evaluation is given up by those
    that got the signal, and by the others when they are done with it.

    Args:
      job: what to do.
      state: host state to start from, with rows in one piece ([B, ...]).
      hooks: who is told.
      progress: where to go on, as given to `Hook.on_checkpoint`; None at the start.

    Returns:
      The final state, on the host.

    Raises:
      NonFiniteError: if loss or gradient stops being finite, and ``job.recovery`` does not say
        otherwise. The step that met it changed nothing; it is raised before the next record,
        evaluation or checkpoint is made.
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
        self.origin: tuple[TrainState, Progress] | None = None
        if job.recovery.goes_back:
            self.origin = state, copy.deepcopy(progress)
        self.saved = progress.step > 0
        self.infos: list[StepInfo] = []
        self.memory: Memory | None = None
        self.interruption = Interruption()
        self.seconds = progress.training_seconds
        self.agreement = Agreement(self.seconds) if job.layout.spread else None
        self.mark = time.perf_counter()

    def run(self) -> Outcome:
        with self.interruption:
            if self.progress.step > 0 and self._due(self.job.limits.evaluate_every):
                self._evaluate()  # if the run was stopped in the evaluation that was due here
            if not self._stops():
                self._compile()
            if self.agreement:
                meet()
            while not self._stops():
                self._advance()
                self._look_up()
            self._settle()  # steps that a signal kept from being looked at
            if not self._signal:
                self._evaluate()
            if not self.saved:
                self._save()
            for hook in self.hooks:
                hook.wait()
        state = self.job.layout.gather(self.state)
        return Outcome(state, self.progress, self._signal, self.memory)

    @property
    def _signal(self) -> int | None:
        """The signal that all processes go by."""
        return self.agreement.signal if self.agreement else self.interruption.signal

    def _stops(self) -> bool:
        return self._is(self.job.limits.finished) or self._signal is not None

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0

    def _look_up(self) -> None:
        """After a step: report, evaluate and save what is due, if the steps so far were well."""
        limits = self.job.limits
        evaluates, saves = self._due(limits.evaluate_every), self._due(limits.checkpoint_every)
        looks = evaluates or saves or self._is(limits.reports) or self._stops()
        if not looks or not self._settle():
            return
        if self._is(limits.reports):
            self._report()
        if evaluates:
            self._evaluate()
        if (saves or self.progress.evaluated) and not self._is(limits.finished):
            self._save()

    def _is(self, question: Callable[[int, float], bool]) -> bool:
        return question(self.progress.step, self.progress.training_seconds)

    def _lap(self) -> float:
        """Seconds since the last call. Each is added to the account of what was done in it."""
        now = time.perf_counter()
        lap, self.mark = now - self.mark, now
        return lap

    def _compile(self) -> None:
        layout, job = self.job.layout, self.job
        loss_fn = passing_words(job.loss_fn) if self.agreement else job.loss_fn
        step: Any = layout.train_step(loss_fn, job.optimizer, job.accumulate)
        batch = layout.split(self._batch())
        # Of several processes none may go its own way.
        alone = (
            contextlib.nullcontext()
            if self.agreement
            else self.interruption.abandonable(self._rescue)
        )
        with contextlib.suppress(AbandonedError), alone:
            self.step = step.lower(self.state, batch, np.float32(0)).compile()
            self.memory = memory_of(self.state, self.step)
            for hook in self.hooks:
                hook.on_start(self.memory)
        self.progress.compilation_seconds += self._lap()

    def _batch(self) -> PyTree:
        batch = self.job.batch(self.progress.step + self.progress.batches_passed_by)
        if self.agreement is None:
            return batch
        return self.agreement.tell(batch, self.seconds, self.interruption.signal)

    def _advance(self) -> None:
        progress = self.progress
        fraction = self.job.limits.progress(progress.step, progress.training_seconds)
        batch = self.job.layout.split(self._batch())
        self.state, info = self.step(self.state, batch, np.float32(fraction))
        self.saved = False
        self.infos.append(info)
        if len(self.infos) > STEPS_IN_FLIGHT:
            done = self.infos[-1 - STEPS_IN_FLIGHT]
            jax.block_until_ready(done.finite)
            if self.agreement:
                self.agreement.hear(done)
        progress.step += 1
        self._count_seconds()
        for hook in self.hooks:
            hook.on_step(progress, fraction)

    def _count_seconds(self) -> None:
        """Add the lap to the seconds of training."""
        self.seconds += self._lap()
        self.progress.training_seconds = (self.agreement or self).seconds

    def _settle(self) -> bool:
        """Wait for the devices, and add up the steps since the last time.

        False if one of them went wrong and the run went back: then it is not where it was.
        """
        infos, self.infos = jax.device_get(self.infos), []
        if self.agreement:
            infos = [self.agreement.hear(info) for info in infos]
        self._count_seconds()
        for number, info in enumerate(infos, self.progress.step - len(infos) + 1):
            loss = float(info.loss.total) / float(info.loss.weight) if info.loss.weight else None
            verdict = self.job.recovery.judge(self.progress, loss, finite=bool(info.finite))
            if verdict is Verdict.STOP:
                raise NonFiniteError(
                    f"{_nonfinite(number, info)}; "
                    "try a smaller optimizer.learning_rate or optimizer.clip_norm"
                )
            if verdict is Verdict.GO_BACK:
                self._go_back(number, info)
                return False
            self._count(info, kept=verdict is Verdict.KEEP)
        return True

    def _count(self, info: StepInfo, *, kept: bool) -> None:
        progress = self.progress
        if not kept:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            return
        progress.skipped_in_a_row = 0
        progress.gradient_norms.append(float(info.gradient_norm))
        for name, part in {"loss": info.loss, **info.metrics}.items():
            total = progress.sums.setdefault(name, [0.0, 0.0])
            total[0] += float(part.total)
            total[1] += float(part.weight)

    def _go_back(self, number: int, info: StepInfo) -> None:
        """Go back to the last checkpoint, and on from the batch after that of step ``number``."""
        assert self.origin is not None
        left, (state, progress) = self.progress, self.origin
        self.progress = dataclasses.replace(
            copy.deepcopy(progress),
            training_seconds=left.training_seconds,
            compilation_seconds=left.compilation_seconds,
            evaluation_seconds=left.evaluation_seconds,
            rollbacks=left.rollbacks + 1,
            batches_passed_by=left.batches_passed_by + number - progress.step,
        )
        self.state = self.job.layout.place(state)
        self.saved = progress.step > 0
        what = f"a spike of the loss at step {number} (loss {float(info.loss.mean())})"
        what = what if info.finite else _nonfinite(number, info)
        logger.warning("%s; going back to step %d", what, progress.step)
        for hook in self.hooks:
            hook.on_rollback(self.progress)
        counts: dict[str, float] = {
            "from_step": number,
            "rollbacks": self.progress.rollbacks,
            "batches_passed_by": self.progress.batches_passed_by,
        }
        self._record("rollback", counts, step=progress.step + 1)
        self._lap()

    def _report(self) -> None:
        progress = self.progress
        sums, norms = progress.sums, progress.gradient_norms
        progress.sums, progress.gradient_norms = {}, []
        values = {name: _ratio(total, weight) for name, (total, weight) in sums.items()}
        if norms:
            values["gradient_norm"] = math.fsum(norms) / len(norms)
        if progress.skipped:
            values["skipped"] = progress.skipped
        self._record("train", values)

    def _evaluate(self) -> None:
        """Evaluate, unless it has been done or a signal comes."""
        if self.job.evaluate is None or self.progress.evaluated:
            return
        params = self.job.layout.here(self.state.params)
        rescue, sums = None if self.agreement else self._rescue, None
        with contextlib.suppress(AbandonedError), self.interruption.abandonable(rescue):
            sums = self.job.evaluate(params)
        given_up = self.agreement and self.agreement.ask(self.interruption.signal)
        if sums is None or given_up:
            return
        values = self.job.figures(add_up(sums))
        self.progress.validation = {name: float(value) for name, value in values.items()}
        self.progress.validation_step = self.progress.step
        self.saved = False
        self.progress.evaluation_seconds += self._lap()
        self._record("validation", self.progress.validation)

    def _record(self, split: str, values: dict[str, float], step: int | None = None) -> None:
        record = {"step": self.progress.step if step is None else step, "split": split, **values}
        for hook in self.hooks:
            hook.on_record(record)

    def _save(self) -> None:
        host, progress = self.job.layout.gather(self.state), copy.deepcopy(self.progress)
        if self.origin is not None:
            self.origin = host, progress
        for hook in self.hooks:
            hook.on_checkpoint(host, progress, evaluated=progress.evaluated)
        self.saved = True
        self._lap()

    def _rescue(self) -> None:
        """Save in place of the main thread, which native code holds and will not give back."""
        if not self.saved:
            self._save()
        for hook in self.hooks:
            hook.wait()


def _nonfinite(number: int, info: StepInfo) -> str:
    return (
        f"loss or gradient is not finite at step {number} (loss "
        f"{float(info.loss.mean())}, gradient norm {float(info.gradient_norm)})"
    )


def sums_to_host(sums: Sequence[dict[str, Weighted]]) -> dict[str, Weighted]:
    """Add the sums of many evaluation steps, over steps and devices, in double precision."""
    totals: dict[str, Weighted] = {}
    for part in jax.device_get(list(sums)):
        for name, value in part.items():
            pair = jax.tree.map(lambda x: np.sum(x, dtype=np.float64), value)
            totals[name] = totals[name] + pair if name in totals else pair
    return totals
