"""Recovery from non-finite steps and loss spikes: stop, skip, or roll back."""

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

WINDOW = 64  # recent losses to which a new one is compared
FEWEST = 16  # with fewer recent losses, nothing is a spike
NORMAL = 1.4826  # a normal distribution's standard deviation / median absolute deviation


class NonFiniteError(ArithmeticError):
    """A loss, a gradient, or a new parameter is NaN or infinite."""


class Verdict(enum.Enum):
    """What to do after a step."""

    KEEP = enum.auto()
    """Count the step."""
    STOP = enum.auto()
    """The run ends with `NonFiniteError`."""
    SKIP = enum.auto()
    """The step changed no parameter; the run continues with the next batch."""
    ROLL_BACK = enum.auto()
    """The run restores its last checkpoint and skips all batches up to and including this one."""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """How to handle non-finite steps and loss spikes.

    A loss is a spike if it exceeds the median of up to 64 recent losses by more than ``spike``
    standard deviations, estimated as 1.4826 · median |loss − median|.

    Attributes:
      on_nonfinite: what to do if a loss, gradient, or new parameter is not finite. Such a step
        never changes the parameters. ``"stop"`` ends the run; ``"skip"`` continues with the next
        batch; ``"rollback"`` restores the last checkpoint and continues with the next batch.
      max_skips: number of steps in a row that may be skipped; one more ends the run. ≥ 1.
      max_rollbacks: number of rollbacks allowed; after that, a non-finite step ends the run and
        spikes are ignored. ≥ 1.
      spike: threshold of a loss spike, in standard deviations, > 0, such as 10. A spike rolls the
        run back. None ignores spikes.

    Raises:
      ValueError: if one of them is out of range.
    """

    on_nonfinite: OnNonFinite = "stop"
    max_skips: int = 10
    max_rollbacks: int = 3
    spike: float | None = None

    def __post_init__(self) -> None:
        """Reject values out of range."""
        if self.on_nonfinite not in get_args(OnNonFinite):
            known = ", ".join(get_args(OnNonFinite))
            raise ValueError(f"on_nonfinite: expected one of {known}, got {self.on_nonfinite!r}")
        check_range("max_skips", self.max_skips, 1)
        check_range("max_rollbacks", self.max_rollbacks, 1)
        if self.spike is not None:
            check_range("spike", self.spike, 0, closed="neither")

    @property
    def goes_back(self) -> bool:
        """Whether a run may roll back and must keep a snapshot for that."""
        return self.on_nonfinite == "rollback" or self.spike is not None

    def judge(self, progress: Progress, loss: float | None, *, finite: bool) -> Verdict:
        """Decide what to do after a step, and record its loss in ``progress``.

        Args:
          progress: counts before the step.
          loss: mean loss of the step; None for a batch of weight 0.
          finite: whether its loss, gradient, and new parameters were finite.

        Returns:
          The verdict.
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
    """Whether a loss is far above the losses before it.

        loss > median + factor · 1.4826 · median |before − median|

    For normally distributed losses this is mean + factor · standard deviation, estimated robustly
    so that earlier spikes hardly matter; losses may be negative. With fewer than 16 losses, or if
    more than half of them are equal, no loss is a spike.

    Args:
      loss: the new loss.
      before: losses of the steps before.
      factor: threshold in standard deviations, such as 10.
    """
    if len(before) < FEWEST:
        return False
    middle = statistics.median(before)
    spread = NORMAL * statistics.median(abs(x - middle) for x in before)
    return spread > 0 and loss > middle + factor * spread
