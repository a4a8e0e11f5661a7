"""The ``train`` section of a configuration."""

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
    """How long to train, how often to report, evaluate, and save, and how to handle bad steps.

    Attributes:
      batch_size: rows B of a global batch.
      steps: nominal length of the run in steps; schedules span it.
      max_steps: stop at this step. Schedules still span ``steps``, or ``max_steps`` if larger.
      max_seconds: stop after this many seconds of training; schedules then span this time.
      patience: stop after this many evaluations in a row without improvement (early stopping).
      seed: seed of parameters, data order, and dropout.
      accumulate: number of parts into which each device splits its rows to save memory.
      shard_optimizer: shard the optimizer state over the devices to save memory.
      report_every, evaluate_every, checkpoint_every: number of steps from one training record,
        evaluation, or checkpoint to the next; every evaluation also saves a checkpoint.
      keep: number of newest checkpoints to keep, in addition to the best one.
      on_nonfinite, max_skips, max_rollbacks, spike: how to handle non-finite steps and loss
        spikes; see `seqnets.training.Recovery`.
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
        """The fields that `Limits` has."""
        return Limits(**self._fields_of(Limits))

    def recovery(self) -> Recovery:
        """The fields that `Recovery` has."""
        return Recovery(**self._fields_of(Recovery))

    def _fields_of(self, kind: type) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(kind)}
