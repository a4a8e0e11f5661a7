"""Schedules: pure functions from progress to a factor of the peak learning rate.

Progress is the fraction of the run that is done, a float32 scalar in [0, 1], so that the same
schedule works for runs limited by steps and by seconds. The first step of a run has progress 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp

from seqnets.checks import check_range
from seqnets.typing import Array, Float

__all__ = ["Schedule", "constant", "cosine", "exponential", "linear", "one_cycle", "warmup"]

Scalar = Float[Array, ""]
"""A float32 scalar array."""
Schedule = Callable[[Scalar], Scalar]
"""A function from progress p in [0, 1] to a factor of the peak learning rate."""


def constant() -> Schedule:
    """The constant ``1``.

    Returns:
      A schedule.
    """
    return lambda progress: jnp.ones_like(progress)


def linear(final: float = 0.0) -> Schedule:
    """``1 - (1 - final) p``, linear from 1 to ``final``.

    Args:
      final: factor at the end, in [0, 1].

    Returns:
      A schedule.

    Raises:
      ValueError: if final is not in [0, 1].
    """
    check_range("final", final, 0, 1)
    return lambda progress: 1 - (1 - final) * progress


def cosine(final: float = 0.0) -> Schedule:
    """``final + (1 - final) (1 + cos πp) / 2``, half a cosine from 1 to ``final``, no restarts.

    Args:
      final: factor at the end, in [0, 1].

    Returns:
      A schedule.

    Raises:
      ValueError: if final is not in [0, 1].

    References:
      Loshchilov, Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017,
      arXiv:1608.03983.
    """
    check_range("final", final, 0, 1)
    return lambda progress: _bend(1.0, final, progress)


def exponential(final: float = 0.01) -> Schedule:
    """``final ** p``, exponential from 1 to ``final``.

    Args:
      final: factor at the end, in (0, 1].

    Returns:
      A schedule.

    Raises:
      ValueError: if final is not in (0, 1].
    """
    check_range("final", final, 0, 1, closed="right")
    return lambda progress: jnp.power(final, progress)


def one_cycle(peak_at: float = 0.3, initial: float = 1 / 25, final: float = 1e-4 / 25) -> Schedule:
    """Half a cosine from ``initial`` up to 1 at ``peak_at``, then half a cosine to ``final``.

    The defaults are those of PyTorch's ``OneCycleLR``, in which the peak is at step
    ``0.3 * steps - 1`` and the momentum changes in the opposite direction; here, the momentum is
    constant. The cycle in the paper is piecewise linear.

    Args:
      peak_at: progress at the peak, in (0, 1).
      initial: factor at the start, in [0, 1].
      final: factor at the end, in [0, 1].

    Returns:
      A schedule.

    Raises:
      ValueError: if peak_at is not in (0, 1), or initial or final is not in [0, 1].

    References:
      Smith, Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
      Rates, 2018, arXiv:1708.07120.
    """
    check_range("peak_at", peak_at, 0, 1, closed="neither")
    check_range("initial", initial, 0, 1)
    check_range("final", final, 0, 1)

    def schedule(progress: Scalar) -> Scalar:
        rise = _bend(initial, 1.0, progress / peak_at)
        fall = _bend(1.0, final, (progress - peak_at) / (1 - peak_at))
        return jnp.where(progress < peak_at, rise, fall)

    return schedule


def warmup(schedule: Schedule, fraction: float, initial: float = 0.01) -> Schedule:
    """A linear warm-up, followed by ``schedule`` over the rest of the run.

        initial + (schedule(0) - initial) p / fraction        if p < fraction
        schedule((p - fraction) / (1 - fraction))             otherwise

    The default ``initial`` is not 0, since that would waste the first step.

    Args:
      schedule: the schedule after the warm-up.
      fraction: fraction of the run for the warm-up, in (0, 1).
      initial: factor at the start, in [0, 1].

    Returns:
      A schedule.

    Raises:
      ValueError: if fraction is not in (0, 1) or initial is not in [0, 1].

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017,
      arXiv:1706.02677 (gradual warm-up, section 2.2).
    """
    check_range("fraction", fraction, 0, 1, closed="neither")
    check_range("initial", initial, 0, 1)

    def warmed(progress: Scalar) -> Scalar:
        start = schedule(jnp.zeros_like(progress))
        rise = initial + (start - initial) * progress / fraction
        rest = schedule(jnp.maximum((progress - fraction) / (1 - fraction), 0))
        return jnp.where(progress < fraction, rise, rest)

    return warmed


def _bend(start: float, end: float, progress: Scalar) -> Scalar:
    """Half a cosine from ``start`` at 0 to ``end`` at 1."""
    return end + (start - end) * (1 + jnp.cos(math.pi * progress)) / 2
