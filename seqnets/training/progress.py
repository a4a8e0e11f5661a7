"""How long a run is, and what it counts."""

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
      steps: nominal length of the run, over which schedules run.
      max_steps: stop at this step. Up to ``steps`` schedules stay as they are, so that a run
        stopped here and resumed equals one that was not stopped; beyond, they run over
        ``max_steps``. None continues to the nominal end.
      max_seconds: seconds of training, the nominal length in place of ``steps`` where given.
        Compilation, evaluation, and checkpoints do not count. The run ends within the few steps
        by which the host is ahead of the devices.
      patience: stop after this many evaluations in a row without a better one (early stopping).
        None does not.
      report_every: steps between training records.
      evaluate_every: steps between evaluations.
      checkpoint_every: steps between checkpoints; every evaluation saves one, too.

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
        """Steps over which schedules run, where ``max_seconds`` does not say otherwise."""
        return max(self.steps, self.max_steps or 0)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the nominal length that is done, at most 1."""
        return min(1.0, seconds / self.max_seconds if self.max_seconds else step / self.length)

    def finished(self, step: int, seconds: float, stale: int = 0) -> bool:
        """Whether to stop."""
        if self.patience and stale >= self.patience:
            return True
        if self.max_seconds and seconds >= self.max_seconds:
            return True
        if self.max_steps:
            return step >= self.max_steps
        return not self.max_seconds and step >= self.steps

    def reports(self, step: int, seconds: float) -> bool:
        """Whether a training record is due; that a run stops before its end has no part in it."""
        end = seconds >= self.max_seconds if self.max_seconds else step == self.length
        return step % self.report_every == 0 or end


@dataclasses.dataclass
class Progress:
    """What the loop must remember, beside the state, to continue as if it had never stopped."""

    step: int = 0
    training_seconds: float = 0.0
    compilation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """``name: [total, weight]`` since the last training record."""
    gradient_norms: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """Norms since the last training record, by objective."""
    validation: dict[str, float] = dataclasses.field(default_factory=dict)
    """The newest evaluation."""
    validation_step: int | None = None
    """The step that it evaluated."""
    best: float | None = None
    """The best metric of the evaluations that were due, as a rank: lower is better."""
    stale: int = 0
    """Those of them since the best."""
    skipped: int = 0
    """Steps skipped because they were not finite."""
    skipped_in_a_row: int = 0
    """Those of them after the last step that was kept."""
    rollbacks: int = 0
    """Number of rollbacks."""
    batches_passed_by: int = 0
    """Batches skipped by rollbacks: step number k, from 0, takes batch k + this."""
    recent_losses: list[float] = dataclasses.field(default_factory=list)
    """Losses that a spike is measured by."""

    @property
    def evaluated(self) -> bool:
        """Whether ``validation`` belongs to this very step."""
        return self.validation_step == self.step


class Snapshot(NamedTuple):
    """A moment of a run: what starting, saving, restoring, and rolling back exchange."""

    state: TrainState
    """Host state, with rows in one piece, [B, ...]."""
    progress: Progress = Progress()
    """What was counted; of the same step as the state."""
