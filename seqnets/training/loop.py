"""The training loop: steps until a limit, with reports, evaluations, and checkpoints in between.

Hooks write all output of a run. When they are called, and with what, depends only on the step (if
the run is limited by steps). The same seed therefore gives the same records, and a run that is
stopped at step k and resumed gives the records of a run that never stopped. There are three
exceptions. The counted seconds differ. The end of a run is always evaluated, so a run stopped by
``max_steps`` has an additional validation record. A run that was stopped between two checkpoints
may later roll back to the step at which it was stopped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from seqnets.checks import check_rows, did_you_mean
from seqnets.data.source import Source
from seqnets.training.evaluation import Evaluation
from seqnets.training.hooks import Hook
from seqnets.training.interruption import AbandonedError, Interruption
from seqnets.training.layout import ONE, Layout, Memory, Program
from seqnets.training.programs import Programs
from seqnets.training.progress import Limits, Progress, Snapshot
from seqnets.training.recovery import NonFiniteError, Recovery, Verdict
from seqnets.training.state import Clock, StepInfo, TrainState, Weights
from seqnets.training.step import TrainStep
from seqnets.typing import PyTree

__all__ = ["Outcome", "train"]

STEPS_IN_FLIGHT = 2  # how far the host may run ahead of the devices: enough to hide its own work

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      snapshot: final state on the host, and progress.
      signal: number of the signal that stopped the run early, or None.
      memory: memory needed on each device; None if no step was compiled or it is unknown.
    """

    snapshot: Snapshot
    signal: int | None
    memory: Memory | None = None

    @property
    def state(self) -> TrainState:
        """The final state."""
        return self.snapshot.state

    @property
    def progress(self) -> Progress:
        """The final counts."""
        return self.snapshot.progress


def train(
    step: TrainStep,
    start: Snapshot,
    source: Source,
    *,
    limits: Limits,
    evaluation: Evaluation | None = None,
    recovery: Recovery | None = None,
    layout: Layout = ONE,
    hooks: Sequence[Hook] = (),
) -> Outcome:
    """Train until a limit is reached or a signal arrives, then save.

    The final state is evaluated, unless a signal stopped the run. A signal during an evaluation
    cancels it; the resumed run then starts with that evaluation.

    With several processes, all must make the same call. They do the same things at the same steps:
    they use the clock of process 0, and a signal to one process stops all of them.

    Args:
      step: the training step, from `make_train_step`.
      start: host state and progress to start from; ``Snapshot(step.init(...))`` for a new run.
      source: batches. A program is compiled for each of its shapes when the shape first occurs.
      limits: when to stop, report, evaluate, and save.
      evaluation: what to measure every ``limits.evaluate_every`` steps; None for nothing.
      recovery: how to handle non-finite steps and loss spikes; None stops at the first non-finite
        step.
      layout: the devices; a single one by default.
      hooks: callbacks of the run.

    Returns:
      The final state and progress, on the host.

    Raises:
      NonFiniteError: if a loss, gradient, or new parameter is not finite and ``recovery`` stops the
        run. Such a step does not change the parameters; the error is raised before the next
        record, evaluation, or checkpoint.
      ValueError: if state and progress have different steps, a batch has a shape that the source
        did not declare, the number of rows is not divisible by the number of devices, patience is
        set without a metric, or the evaluation does not compute its metric.
    """
    if start.progress.step != int(start.state.step):
        raise ValueError(
            f"start: expected progress at the state's step {int(start.state.step)}, got step "
            f"{start.progress.step}"
        )
    if limits.patience and (evaluation is None or evaluation.metric is None):
        raise ValueError("patience: expected an evaluation with a metric, got none")
    run = _Run(step, source, limits, evaluation, recovery or Recovery(), layout, hooks)
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.on_end)
        return run(start)


class _Run:
    """One call of `train`: the loop and its bookkeeping."""

    def __init__(
        self,
        step: TrainStep,
        source: Source,
        limits: Limits,
        evaluation: Evaluation | None,
        recovery: Recovery,
        layout: Layout,
        hooks: Sequence[Hook],
    ) -> None:
        self.step, self.source, self.limits = step, source, limits
        self.evaluation, self.recovery = evaluation, recovery
        self.layout, self.hooks = layout, hooks
        self.programs = Programs(step, source, layout)
        self.infos: list[StepInfo] = []
        self.replies: list[PyTree] = []
        self.interruption = Interruption()
        self.mark = time.perf_counter()

    def __call__(self, start: Snapshot) -> Outcome:
        self.progress = copy.deepcopy(start.progress)
        self.state = self.layout.place(start.state)
        self.origin = start if self.recovery.goes_back else None
        self.saved = self.progress.step > 0
        self.seconds = self.progress.training_seconds
        self.consensus = self.layout.peers.consensus(self.seconds)
        with self.interruption:
            if self.progress.step > 0 and self._due(self.limits.evaluate_every):
                self._evaluate()  # in case a signal canceled the evaluation due at this step
            while not self._stops():
                if self._advance():
                    self._look_up()
            self._settle()  # steps not yet checked because of a signal
            if not self._signal:
                self._evaluate()
            if not self.saved:
                self._save()
            for hook in self.hooks:
                hook.wait()
        final = Snapshot(self.layout.gather(self.state), self.progress)
        return Outcome(final, self._signal, self.programs.memory)

    @property
    def _signal(self) -> int | None:
        """The signal agreed on by all processes."""
        return self.consensus.signal(self.interruption.signal)

    def _finished(self) -> bool:
        progress = self.progress
        return self.limits.finished(progress.step, progress.training_seconds, progress.stale)

    def _stops(self) -> bool:
        return self._finished() or self._signal is not None

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0

    def _reports(self) -> bool:
        return self.limits.reports(self.progress.step, self.progress.training_seconds)

    def _look_up(self) -> None:
        """After a step: report, evaluate, and save if due, unless the run rolls back."""
        limits = self.limits
        evaluates, saves = self._due(limits.evaluate_every), self._due(limits.checkpoint_every)
        looks = evaluates or saves or self._reports() or self._stops()
        if not looks or not self._settle():
            return
        if self._reports():
            self._report()
        if evaluates:
            self._evaluate()
        if (saves or self.progress.evaluated) and not self._finished():
            self._save()

    def _lap(self) -> float:
        """Seconds since the last call; the caller adds them to the matching count."""
        now = time.perf_counter()
        lap, self.mark = now - self.mark, now
        return lap

    # --- steps -------------------------------------------------------------------------------

    def _program(self, host: PyTree, batch: PyTree) -> Program | None:
        """The step compiled for a batch; None if a signal arrived during compilation."""
        program = self.programs.get(host)
        if program is not None:
            return program
        # With several processes, none may abandon the compilation on its own.
        alone = (
            self.interruption.abandonable(self._rescue)
            if self.consensus.alone
            else contextlib.nullcontext()
        )
        first = not len(self.programs)
        if not first:
            self._count_seconds()
        with contextlib.suppress(AbandonedError), alone:
            compiled = self.programs.compile(host, self.state, batch)
            if first:
                for hook in self.hooks:
                    hook.on_start(compiled.memory)
            program = compiled
        self.layout.peers.wait()
        self.progress.compilation_seconds += self._lap()
        return program

    def _advance(self) -> bool:
        """Take a step; False if a signal arrived during compilation."""
        progress = self.progress
        host = self.source.batch(progress.step + progress.batches_passed_by, self.layout.share)
        rows = check_rows("batch", host)
        batch = self.layout.split(host)
        program = self._program(host, batch)
        if program is None:
            return False
        fraction = self.limits.progress(progress.step, progress.training_seconds)
        clock = Clock(np.float32(fraction), np.int32(progress.stale))  # type: ignore[arg-type]
        message = self.consensus.message(rows, self.seconds, self.interruption.signal)
        self.state, info, reply = program(self.state, batch, clock, message)
        self.saved = False
        self.infos.append(info)
        self.replies.append(reply)
        if len(self.infos) > STEPS_IN_FLIGHT:
            jax.block_until_ready(self.infos[-1 - STEPS_IN_FLIGHT].finite)
            self.consensus.receive(self.replies.pop(0))
        progress.step += 1
        self._count_seconds()
        for hook in self.hooks:
            hook.on_step(progress, fraction)
        return True

    def _count_seconds(self) -> None:
        """Add the time since the last lap to the seconds of training."""
        self.seconds += self._lap()
        self.progress.training_seconds = self.consensus.seconds(self.seconds)

    def _settle(self) -> bool:
        """Wait for the devices, and judge and count the steps since the last call.

        False if the run rolled back, so that it is no longer at the same step.
        """
        infos, self.infos = jax.device_get(self.infos), []
        for reply in self.replies:
            self.consensus.receive(reply)
        self.replies.clear()
        self._count_seconds()
        for number, info in enumerate(infos, self.progress.step - len(infos) + 1):
            loss = float(info.loss.total) / float(info.loss.weight) if info.loss.weight else None
            verdict = self.recovery.judge(self.progress, loss, finite=bool(info.finite))
            if verdict is Verdict.STOP:
                raise NonFiniteError(
                    f"{_nonfinite(number, info)}; try a smaller learning rate or clip_norm"
                )
            if verdict is Verdict.ROLL_BACK:
                self._roll_back(number, info)
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
        for name, norm in info.gradient_norms.items():
            if info.losses[name].weight:
                progress.gradient_norms.setdefault(name, []).append(float(norm))
        for name, part in {**info.losses, **info.metrics}.items():
            total = progress.sums.setdefault(name, [0.0, 0.0])
            total[0] += float(part.total)
            total[1] += float(part.weight)

    def _roll_back(self, number: int, info: StepInfo) -> None:
        """Restore the last checkpoint, and skip the batches up to the one of step ``number``."""
        assert self.origin is not None
        left, origin = self.progress, self.origin
        self.progress = dataclasses.replace(
            copy.deepcopy(origin.progress),
            training_seconds=left.training_seconds,
            compilation_seconds=left.compilation_seconds,
            evaluation_seconds=left.evaluation_seconds,
            rollbacks=left.rollbacks + 1,
            batches_passed_by=left.batches_passed_by + number - origin.progress.step,
        )
        self.state = self.layout.place(origin.state)
        self.saved = origin.progress.step > 0
        what = f"loss spike at step {number} (loss {float(info.loss.mean())})"
        what = what if info.finite else _nonfinite(number, info)
        logger.warning("%s; rolling back to step %d", what, origin.progress.step)
        for hook in self.hooks:
            hook.on_rollback(self.progress)
        counts: dict[str, float] = {
            "from_step": number,
            "rollbacks": self.progress.rollbacks,
            "batches_passed_by": self.progress.batches_passed_by,
        }
        self._record("rollback", counts, step=origin.progress.step + 1)
        self._lap()

    # --- reports, evaluations, checkpoints -----------------------------------------------------

    def _report(self) -> None:
        progress = self.progress
        sums, norms = progress.sums, progress.gradient_norms
        progress.sums, progress.gradient_norms = {}, {}
        values = {name: total / weight for name, (total, weight) in sums.items() if weight}
        lone = len(self.step.objectives) == 1
        for name, own in norms.items():
            values["gradient_norm" if lone else f"{name}_gradient_norm"] = math.fsum(own) / len(own)
        if progress.skipped:
            values["skipped"] = progress.skipped
        self._record("train", values)

    def _evaluate(self) -> None:
        """Evaluate this step, unless that has been done or a signal arrives."""
        evaluation, progress = self.evaluation, self.progress
        if evaluation is None or progress.evaluated:
            return
        weights = self.layout.local(Weights(self.state.params, self.state.variables))
        rescue, sums = self._rescue if self.consensus.alone else None, None
        with contextlib.suppress(AbandonedError), self.interruption.abandonable(rescue):
            sums = evaluation.sums(weights)
        canceled = self.consensus.ask(self.interruption.signal)
        if sums is None or canceled:
            return
        values = evaluation.figures(self.layout.peers.all_reduce(sums))
        progress.validation = {name: float(value) for name, value in values.items()}
        progress.validation_step = progress.step
        if evaluation.metric is not None and self._due(self.limits.evaluate_every):
            self._count_stale()
        self.saved = False
        progress.evaluation_seconds += self._lap()
        self._record("validation", progress.validation)

    def _count_stale(self) -> None:
        """Record whether an evaluation was the best.

        Only scheduled evaluations count, so that stopping and resuming a run changes nothing.
        """
        progress, rank = self.progress, self._rank()
        if rank is not None and (progress.best is None or rank < progress.best):
            progress.best, progress.stale = rank, 0
        else:
            progress.stale += 1

    def _rank(self) -> float | None:
        """The metric of this step's evaluation, with its sign set so that lower is better."""
        evaluation, figures = self.evaluation, self.progress.validation
        if evaluation is None or evaluation.metric is None or not self.progress.evaluated:
            return None
        figure = figures.get(evaluation.metric, math.nan)
        rank = -figure if evaluation.higher_is_better else figure
        return rank if math.isfinite(rank) else None

    def _record(self, split: str, values: dict[str, float], step: int | None = None) -> None:
        record = {"step": self.progress.step if step is None else step, "split": split}
        for name in values:
            if name in record:
                raise ValueError(f"metrics: the name {name!r} is reserved")
        record |= values
        for hook in self.hooks:
            hook.on_record(record)

    def _save(self) -> None:
        snapshot = Snapshot(self.layout.gather(self.state), copy.deepcopy(self.progress))
        if self.origin is not None:
            self.origin = snapshot
        rank = self._rank()
        for hook in self.hooks:
            hook.on_checkpoint(snapshot, rank)
        self.saved = True
        self._check_metric()
        self._lap()

    def _check_metric(self) -> None:
        """Raise if the evaluation does not compute its metric; the state has been saved by then."""
        metric = None if self.evaluation is None else self.evaluation.metric
        figures = self.progress.validation
        if metric is not None and self.progress.evaluated and metric not in figures:
            for hook in self.hooks:
                hook.wait()
            raise ValueError(
                f"metric: the evaluation has no {metric!r}; {did_you_mean(metric, figures)}"
            )

    def _rescue(self) -> None:
        """Save in place of the main thread, which is blocked in native code."""
        if not self.saved:
            self._save()
        for hook in self.hooks:
            hook.wait()


def _nonfinite(number: int, info: StepInfo) -> str:
    means = ", ".join(f"{name} {float(part.mean())}" for name, part in info.losses.items())
    norms = ", ".join(str(float(norm)) for norm in info.gradient_norms.values())
    figures = [*(part.mean() for part in info.losses.values()), *info.gradient_norms.values()]
    what = "a new parameter" if np.isfinite(figures).all() else "a loss or gradient"
    return f"{what} is not finite at step {number} ({means}, gradient norm {norms})"
