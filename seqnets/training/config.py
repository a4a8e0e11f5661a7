"""The section ``train`` of a configuration."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import msgspec

from seqnets.config import Positive, Seconds, field
from seqnets.training.progress import Limits
from seqnets.training.recovery import OnNonFinite, Recovery

__all__ = ["TrainConfig"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, and what is kept.

    Attributes:
      batch_size: rows of a global batch B.
      steps: nominal length of the run, over which schedules run.
      max_steps: stop at this step, schedules unchanged; beyond ``steps`` they run up to it.
      max_seconds: stop after so many seconds of training; schedules then run over the time.
      patience: stop after so many evaluations without a better one.
      seed: of parameters, data order, and dropout.
      accumulate: parts into which each device cuts its rows to save memory.
      shard_optimizer: each device holds only its part of the optimizer's state, to save memory.
      report_every, evaluate_every, checkpoint_every: in steps.
      keep: newest checkpoints kept, beside the best.
      on_nonfinite, max_skips, max_rollbacks, spike: what to do about steps that are not finite,
        and about spikes of the loss; see `seqnets.training.recovery.Recovery`.
    """

    batch_size: Positive = 32
    steps: Positive = field(2000, keyword=None)
    max_steps: Positive | None = field(None, may_change=True, keyword=None)
    max_seconds: Seconds | None = field(None, may_change=True, keyword=None)
    patience: Positive | None = field(None, may_change=True)
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    accumulate: Positive = field(1, may_change=True)
    shard_optimizer: bool = field(False, may_change=True)
    report_every: Positive = field(50, may_change=True)
    evaluate_every: Positive = field(500, may_change=True)
    checkpoint_every: Positive = 500
    keep: Positive = field(2, may_change=True)
    on_nonfinite: OnNonFinite = field("stop", may_change=True)
    max_skips: Positive = field(10, may_change=True)
    max_rollbacks: Positive = field(3, may_change=True)
    spike: Annotated[float, msgspec.Meta(gt=0)] | None = field(None, may_change=True)

    def limits(self) -> Limits:
        """How long the run is."""
        return Limits(**self._fields_of(Limits))

    def recovery(self) -> Recovery:
        """What to do about bad steps."""
        return Recovery(**self._fields_of(Recovery))

    def _fields_of(self, kind: type) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(kind)}
