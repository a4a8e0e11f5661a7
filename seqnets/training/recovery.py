"""What to do about a step that went wrong: stop, skip it, or roll back and skip its batch."""

from __future__ import annotations

import dataclasses
import enum
import statistics
from collections.abc import Sequence
from typing import Literal, get_args

from seqnets.checks import check_range
from seqnets.training.progress import Progress

__all__ = ["NonFiniteError", "OnNonFinite", "Recovery", "Verdict", "is_spike"]

OnNonFinite = Literal["stop", "skip", "rollback"]

WINDOW = 64  # losses by which a new one is measured
FEWEST = 16  # losses before which nothing is a spike
NORMAL = 1.4826  # standard deviation over median absolute deviation, of a normal distribution


class NonFiniteError(ArithmeticError):
    """A loss, a gradient, or a new parameter is NaN or infinite."""


class Verdict(enum.Enum):
    """What becomes of a step."""

    KEEP = enum.auto()
    """It counts."""
    STOP = enum.auto()
    """The run ends with `NonFiniteError`."""
    SKIP = enum.auto()
    """It changed nothing; the run continues with the next batch."""
    ROLL_BACK = enum.auto()
    """The run restores its last checkpoint and skips all batches up to this one."""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What to do about steps that are not finite, and about spikes of the loss.

    Attributes:
      on_nonfinite: what follows a loss, gradient, or new parameter that is not finite. Such a
        step never changes the parameters. ``"stop"`` ends the run; ``"skip"`` continues with the
        next batch; ``"rollback"`` restores the last checkpoint and continues with the next batch.
      max_skips: steps skipped in a row, after which one more ends the run.
      max_rollbacks: how often a run rolls back. After that a step that is not finite ends it,
        and a spike is left alone.
      spike: also roll back where the loss of a step is a spike: see `is_spike`, whose ``factor``
        this is; None never does.

    Raises:
      ValueError: if one of them is out of range.
    """

    on_nonfinite: OnNonFinite = "stop"
    max_skips: int = 10
    max_rollbacks: int = 3
    spike: float | None = None

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        if self.on_nonfinite not in get_args(OnNonFinite):
            known = ", ".join(get_args(OnNonFinite))
            raise ValueError(f"on_nonfinite: expected one of {known}, got {self.on_nonfinite!r}")
        check_range("max_skips", self.max_skips, 1)
        check_range("max_rollbacks", self.max_rollbacks, 1)
        if self.spike is not None:
            check_range("spike", self.spike, 0, closed="neither")

    @property
    def goes_back(self) -> bool:
        """Whether a run may roll back, and must keep a state for that."""
        return self.on_nonfinite == "rollback" or self.spike is not None

    def judge(self, progress: Progress, loss: float | None, *, finite: bool) -> Verdict:
        """Say what becomes of a step, and note its loss in ``progress``.

        Args:
          progress: what was counted before the step.
          loss: the mean loss of the step; None for a batch without weight.
          finite: whether its loss, gradient, and new parameters were finite.
        """
        may_roll_back = progress.rollbacks < self.max_rollbacks
        if not finite:
            if self.on_nonfinite == "rollback" and may_roll_back:
                return Verdict.ROLL_BACK
            may_skip = progress.skipped_in_a_row < self.max_skips
            return Verdict.SKIP if self.on_nonfinite == "skip" and may_skip else Verdict.STOP
        if self.spike is None or loss is None:
            return Verdict.KEEP
        if may_roll_back and is_spike(loss, progress.recent_losses, self.spike):
            return Verdict.ROLL_BACK
        progress.recent_losses = [*progress.recent_losses, loss][-WINDOW:]
        return Verdict.KEEP


def is_spike(loss: float, before: Sequence[float], factor: float) -> bool:
    """Whether a loss stands out above those before it.

        loss > median + factor · 1.4826 · median |before − median|

    The right side is the mean and ``factor`` standard deviations of a normal distribution, from
    figures that earlier spikes hardly move; a loss may be negative. Of fewer than 16 losses, or
    losses more than half of which are equal, nothing is known: then no loss is a spike.

    Args:
      loss: the new one.
      before: those of the steps before.
      factor: how far out a spike is; 10, say.
    """
    if len(before) < FEWEST:
        return False
    middle = statistics.median(before)
    spread = NORMAL * statistics.median(abs(x - middle) for x in before)
    return spread > 0 and loss > middle + factor * spread
