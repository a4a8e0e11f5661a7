"""Hyperparameters, which may be traced numbers; learning rates may also be functions."""

from __future__ import annotations

import math
from typing import TypeAlias

import optax

from seqnets.checks import check_number, check_range
from seqnets.typing import Array, Float

__all__ = ["LearningRate", "is_zero", "scale_by_rate"]

LearningRate: TypeAlias = float | Float[Array, ""] | optax.Schedule
"""A number, possibly traced, or an Optax schedule, which maps the count of updates to a number.

The schedules of `seqnets.optimizers` are functions of progress instead; see `make_optimizer`.
"""


def scale_by_rate(
    learning_rate: LearningRate, *, flip_sign: bool = True
) -> optax.GradientTransformation:
    """Multiply updates by a learning rate, and by -1 unless ``flip_sign`` is False.

    A schedule receives the number of previous updates, which is then the state.

    Raises:
      TypeError: if learning_rate is neither a number nor a function.
      ValueError: if it is negative or not finite; traced numbers are not checked.
    """
    if not callable(learning_rate):
        check_range("learning_rate", learning_rate, 0, math.inf, closed="left")
    return optax.scale_by_learning_rate(learning_rate, flip_sign=flip_sign)


def is_zero(name: str, value: float | Float[Array, ""]) -> bool:
    """Whether a hyperparameter is the Python number 0, so that its transformation can be omitted.

    The structure of the state must not depend on a value that may be traced or may change. For
    arrays, to which `optax.inject_hyperparams` converts numbers, the result is therefore False.

    Raises:
      TypeError: if value is not a number.
    """
    check_number(name, value)
    return isinstance(value, int | float) and value == 0
