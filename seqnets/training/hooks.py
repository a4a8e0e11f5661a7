"""Hooks: callbacks of the training loop."""

from __future__ import annotations

from typing import Any

from seqnets.training.layout import Memory
from seqnets.training.progress import Progress, Snapshot

__all__ = ["Hook"]


class Hook:
    """Base class of callbacks of a run; override the methods that you need."""

    def on_start(self, memory: Memory | None) -> None:
        """Called when the first step is compiled, before it is taken.

        Args:
          memory: memory that the step needs on each device; None if unknown.
        """

    def on_step(self, progress: Progress, fraction: float) -> None:
        """Called after every step; must not wait for the devices.

        Args:
          progress: counts after the step; do not change them.
          fraction: fraction of the run that was done before the step, in [0, 1].
        """

    def on_record(self, record: dict[str, Any]) -> None:
        """Called with every record.

        Args:
          record: ``{"step": k, "split": split, metric: value, ...}`` with the split ``"train"``,
            ``"validation"``, or ``"rollback"``. A rollback's step is the first one to be repeated.
        """

    def on_rollback(self, progress: Progress) -> None:
        """Called when the run has rolled back; records of later steps are no longer valid.

        Args:
          progress: counts at the restored step.
        """

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """Called with every checkpoint.

        Args:
          snapshot: state and progress on the host; the loop does not modify them later.
          rank: metric of the evaluation at this step, negated if higher is better, so that lower
            is better; None without an evaluation.
        """

    def wait(self) -> None:
        """Called before a run ends without error: finish pending work and raise its errors."""

    def on_end(self) -> None:
        """Called when the run ends, with or without an error."""
