"""Limits of a run, and its counters."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from seqnets.checks import check_range
from seqnets.training.state import TrainState

__all__ = ["Limits", "Progress", "Snapshot"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a run is, when it stops, and how often it reports, evaluates, and saves.

    Attributes:
      steps: nominal length of the run in steps; schedules span it.
      max_steps: stop at this step. Schedules still span ``steps``, so a run stopped here and
        resumed equals one that never stopped; if ``max_steps`` is larger, they span that instead.
        None continues to the nominal end.
      max_seconds: stop after this many seconds of training; schedules span this time instead of
        ``steps``. Compilation, evaluation, and checkpoints do not count. The run may take a few
        more steps, those by which the host is ahead of the devices.
      patience: stop after this many evaluations in a row without improvement (early stopping).
        None disables this.
      report_every: steps between training records.
      evaluate_every: steps between evaluations.
      checkpoint_every: steps between checkpoints; every evaluation also saves one.

    Raises:
      ValueError: if one of them is not positive.
    """

    steps: int
    max_steps: int | None = None
    max_seconds: float | None = None
    patience: int | None = None
    report_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if name == "max_seconds" and value is not None:
                check_range(name, value, 0, closed="neither")
            elif value is not None:
                check_range(name, value, 1)

    @property
    def length(self) -> int:
        """Number of steps that schedules span, if ``max_seconds`` is not set."""
        return max(self.steps, self.max_steps or 0)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the nominal length that is done.

        Args:
          step: number of steps taken.
          seconds: seconds of training.

        Returns:
          In [0, 1].
        """
        return min(1.0, seconds / self.max_seconds if self.max_seconds else step / self.length)

    def finished(self, step: int, seconds: float, stale: int = 0) -> bool:
        """Whether the run must stop.

        Args:
          step: number of steps taken.
          seconds: seconds of training.
          stale: scheduled evaluations since the best one.
        """
        if self.patience and stale >= self.patience:
            return True
        if self.max_seconds and seconds >= self.max_seconds:
            return True
        if self.max_steps:
            return step >= self.max_steps
        return not self.max_seconds and step >= self.steps

    def reports(self, step: int, seconds: float) -> bool:
        """Whether a training record is due; stopping before the nominal end makes none due."""
        end = seconds >= self.max_seconds if self.max_seconds else step == self.length
        return step % self.report_every == 0 or end


@dataclasses.dataclass
class Progress:
    """What the loop must keep in addition to the state to continue as if it had never stopped."""

    step: int = 0
    training_seconds: float = 0.0
    compilation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """``name: [total, weight]`` since the last training record."""
    gradient_norms: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """Gradient norms since the last training record, by objective."""
    validation: dict[str, float] = dataclasses.field(default_factory=dict)
    """Metrics of the newest evaluation."""
    validation_step: int | None = None
    """The step of the newest evaluation."""
    best: float | None = None
    """The best rank of the scheduled evaluations; lower is better."""
    stale: int = 0
    """Number of scheduled evaluations since the best one."""
    skipped: int = 0
    """Number of steps skipped because they were not finite."""
    skipped_in_a_row: int = 0
    """Number of steps skipped since the last step that was kept."""
    rollbacks: int = 0
    """Number of rollbacks."""
    batches_passed_by: int = 0
    """Number of batches skipped by rollbacks; step k, from 0, uses batch k + this number."""
    recent_losses: list[float] = dataclasses.field(default_factory=list)
    """Recent losses, for detecting spikes."""

    @property
    def evaluated(self) -> bool:
        """Whether ``validation`` belongs to the current step."""
        return self.validation_step == self.step


class Snapshot(NamedTuple):
    """State and progress of a run at one step, to start from, save, restore, or roll back to."""

    state: TrainState
    """Host state, with all rows [B, ...]."""
    progress: Progress = Progress()
    """Counts at the same step."""
