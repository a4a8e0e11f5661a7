"""Hyperparameters: numbers, also traced ones; learning rates may be functions of a count too."""

from __future__ import annotations

import math
from typing import TypeAlias

import optax

from seqnets.checks import check_number, check_range
from seqnets.typing import Array, Float

__all__ = ["LearningRate", "is_zero", "scale_by_rate"]

LearningRate: TypeAlias = float | Float[Array, ""] | optax.Schedule
"""A number, also a traced one, or a schedule as Optax has them: the count of updates to a number.

The schedules of `seqnets.optimizers` are functions of progress instead; see `make_optimizer`.
"""


def scale_by_rate(
    learning_rate: LearningRate, *, flip_sign: bool = True
) -> optax.GradientTransformation:
    """Multiply updates by a learning rate, and by -1 unless ``flip_sign`` is False.

    A schedule is given the number of updates before this one, which is then the state.

    Raises:
      TypeError: if learning_rate is neither a number nor a function.
      ValueError: if it is negative or not finite; of traced numbers neither is known.
    """
    if not callable(learning_rate):
        check_range("learning_rate", learning_rate, 0, math.inf, closed="left")
    return optax.scale_by_learning_rate(learning_rate, flip_sign=flip_sign)


def is_zero(name: str, value: float | Float[Array, ""]) -> bool:
    """Whether a hyperparameter is the number 0, and its part of an optimizer is left out.

    The form of the state must not depend on a value that may be traced, or may change: of arrays,
    which are what `optax.inject_hyperparams` makes of numbers, the part always stays.

    Raises:
      TypeError: if it is not a number.
    """
    check_number(name, value)
    return isinstance(value, int | float) and value == 0
