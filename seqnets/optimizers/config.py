"""The section ``optimizer`` of configurations."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import msgspec

from seqnets.config import Fraction, NotNegative, call_named, field, look_up
from seqnets.optimizers.composition import make_optimizer
from seqnets.optimizers.plateau import Plateau
from seqnets.optimizers.schedules import warmup
from seqnets.optimizers.tables import OPTIMIZERS, SCHEDULES

__all__ = ["OptimizerConfig"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The options of `make_optimizer`, by names and numbers.

    Attributes:
      name: a key of `OPTIMIZERS`.
      options: further arguments of that function.
      learning_rate: peak learning rate, which the schedule scales, positive.
      schedule: a key of `SCHEDULES`.
      schedule_options: arguments of that function.
      warmup: fraction of the run in which the learning rate rises from a hundredth of its peak.
      clip_norm: largest global norm of the gradient; 0 does not clip.
      clip_value: largest magnitude of the elements of the gradient; 0 does not clip.
      weight_decay: decoupled decay of weights, but not of biases and norms (adam becomes AdamW).
      plateau: when to reduce the learning rate if the loss stops falling; None never does.
    """

    name: str = field("adam", keyword="optimizer")
    options: dict[str, bool | float] = field({}, keyword="optimizer_options", options_of="name")
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 3e-3
    schedule: str = "cosine"
    schedule_options: dict[str, float] = field({}, options_of="schedule")
    warmup: Fraction = 0.02
    clip_norm: NotNegative = 1.0
    clip_value: NotNegative = 0.0
    weight_decay: NotNegative = 0.01
    plateau: Plateau | None = None

    def build(self) -> Any:
        """Build the Optax transformation, whose ``update`` requires ``progress``.

        Raises:
          ConfigError: if a name or an option does not exist or is out of range.
        """
        algorithm = call_named(
            "optimizer.options",
            look_up("optimizer.name", OPTIMIZERS, self.name),
            self.name,
            self.options,
            learning_rate=1.0,
        )
        schedule = call_named(
            "optimizer.schedule_options",
            look_up("optimizer.schedule", SCHEDULES, self.schedule),
            self.schedule,
            self.schedule_options,
        )
        return make_optimizer(
            algorithm,
            learning_rate=self.learning_rate,
            schedule=warmup(schedule, self.warmup) if self.warmup else schedule,
            clip_norm=self.clip_norm or None,
            clip_value=self.clip_value or None,
            weight_decay=self.weight_decay,
            plateau=self.plateau,
        )
