"""Hooks: observers of a run."""

from __future__ import annotations

from typing import Any

from seqnets.training.layout import Memory
from seqnets.training.progress import Progress, Snapshot

__all__ = ["Hook"]


class Hook:
    """Something that watches a run; a hook overrides the methods that it needs."""

    def on_start(self, memory: Memory | None) -> None:
        """The first step is compiled and about to be taken; the memory is None if unknown."""

    def on_step(self, progress: Progress, fraction: float) -> None:
        """After every step; must not wait for the devices."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A report: ``{"step": k, "split": name, name: value, ...}``.

        The splits are ``"train"``, ``"validation"``, and ``"rollback"``; the step of the last is
        the first that is taken again.
        """

    def on_rollback(self, progress: Progress) -> None:
        """The run went back to this step; reports of later ones no longer count."""

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """A snapshot to keep, on the host; it is the hook's own, and nobody changes it later.

        Args:
          snapshot: state and progress.
          rank: metric of an evaluation of this very step, lower is better; None without one.
        """

    def wait(self) -> None:
        """Before a run ends well: finish what was begun, and raise what went wrong with it."""

    def on_end(self) -> None:
        """When the run is left, in whatever way."""
