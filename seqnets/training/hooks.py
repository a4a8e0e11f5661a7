"""How long a run is, what it counts, and who is told: the values and the face of hooks."""

from __future__ import annotations

import dataclasses
from typing import Any

from seqnets.checks import check_range
from seqnets.training.memory import Memory
from seqnets.training.state import TrainState

__all__ = ["Hook", "Limits", "Progress"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a run is, when it stops, and how often it looks up from its work.

    Attributes:
      steps: nominal length of the run, over which schedules run.
      max_steps: stop at this step; schedules stay as they are, so that a run stopped here and
        resumed equals one that was not stopped. None: go on to the nominal end.
      max_seconds: seconds of training, the nominal length in place of ``steps`` where given.
        Compilation, evaluation and checkpoints do not count. The run ends within the few steps
        by which the host is ahead of the devices.
      report_every: steps between training records.
      evaluate_every: steps between evaluations.
      checkpoint_every: steps between checkpoints; every evaluation saves one, too.

    Raises:
      ValueError: if one of them is not positive.
    """

    steps: int
    max_steps: int | None = None
    max_seconds: float | None = None
    report_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if name == "max_seconds" and value is not None:
                check_range(name, value, 0, closed="neither")
            elif value is not None:
                check_range(name, value, 1)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the nominal length that is done, at most 1."""
        return min(1.0, seconds / self.max_seconds if self.max_seconds else step / self.steps)

    def finished(self, step: int, seconds: float) -> bool:
        """Whether to stop."""
        if self.max_seconds and seconds >= self.max_seconds:
            return True
        if self.max_steps:
            return step >= self.max_steps
        return not self.max_seconds and step >= self.steps

    def reports(self, step: int, seconds: float) -> bool:
        """Whether a training record is due; ``max_steps`` has no part in it."""
        end = seconds >= self.max_seconds if self.max_seconds else step == self.steps
        return step % self.report_every == 0 or end


@dataclasses.dataclass
class Progress:
    """What the loop must remember, beside the state, to go on as if it had not stopped."""

    step: int = 0
    training_seconds: float = 0.0
    compilation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """``name: [total, weight]`` since the last training record."""
    gradient_norms: list[float] = dataclasses.field(default_factory=list)
    """Norms since the last training record."""
    validation: dict[str, float] = dataclasses.field(default_factory=dict)
    """The newest evaluation."""
    validation_step: int | None = None
    """The step it is of."""
    skipped: int = 0
    """Steps left out because they were not finite."""
    skipped_in_a_row: int = 0
    """Those of them after the last that was kept."""
    rollbacks: int = 0
    """How often the run went back."""
    batches_passed_by: int = 0
    """Batches left out by going back: step number k, from 0, takes batch k + this."""
    recent_losses: list[float] = dataclasses.field(default_factory=list)
    """By which a spike is told."""

    @property
    def evaluated(self) -> bool:
        """Whether ``validation`` is of this very step."""
        return self.validation_step == self.step


class Hook:
    """Something that watches a run; every method may be left out."""

    def on_start(self, memory: Memory) -> None:
        """The step is compiled; the first is about to be taken."""

    def on_step(self, progress: Progress, fraction: float) -> None:
        """After every step; must not wait for the devices."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A report: ``{"step": k, "split": name, name: value, ...}``.

        The splits are ``"train"``, ``"validation"`` and ``"rollback"``; the step of the last is
        the first that is taken anew.
        """

    def on_rollback(self, progress: Progress) -> None:
        """The run went back to this step; reports of later ones no longer count."""

    def on_checkpoint(self, state: TrainState, progress: Progress, *, evaluated: bool) -> None:
        """A host copy of the state to keep; ``evaluated`` if ``progress.validation`` is of it.

        Both are the hook's own: nobody changes them later.
        """

    def wait(self) -> None:
        """Before a run ends well: finish what was begun, and raise what went wrong with it."""

    def on_end(self) -> None:
        """When the run is left, in whatever way."""
