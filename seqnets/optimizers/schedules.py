"""Schedules: pure functions of progress to a factor of the peak learning rate.

Progress is the fraction of the run that is done, a float32 scalar in [0, 1], so that one schedule
serves runs bounded by steps and runs bounded by seconds. The first step of a run has progress 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp

from seqnets.checks import check_range
from seqnets.typing import Array, Float

__all__ = ["Schedule", "constant", "cosine", "exponential", "linear", "one_cycle", "warmup"]

Scalar = Float[Array, ""]
"""A float32 array without axes."""
Schedule = Callable[[Scalar], Scalar]
"""Progress p in [0, 1] to a factor of the peak learning rate."""


def constant() -> Schedule:
    """``1`` throughout."""
    return lambda progress: jnp.ones_like(progress)


def linear(final: float = 0.0) -> Schedule:
    """``1 - (1 - final) p``: a straight line from 1 to ``final``.

    Raises:
      ValueError: if final is not in [0, 1].
    """
    check_range("final", final, 0, 1)
    return lambda progress: 1 - (1 - final) * progress


def cosine(final: float = 0.0) -> Schedule:
    """``final + (1 - final) (1 + cos πp) / 2``: half a cosine from 1 to ``final``, no restarts.

    Raises:
      ValueError: if final is not in [0, 1].

    References:
      Loshchilov, Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017,
      arXiv:1608.03983.
    """
    check_range("final", final, 0, 1)
    return lambda progress: _bend(1.0, final, progress)


def exponential(final: float = 0.01) -> Schedule:
    """``final ** p``: equal fractions in equal times, from 1 to ``final``.

    Raises:
      ValueError: if final is not in (0, 1].
    """
    check_range("final", final, 0, 1, closed="right")
    return lambda progress: jnp.power(final, progress)


def one_cycle(peak_at: float = 0.3, initial: float = 1 / 25, final: float = 1e-4 / 25) -> Schedule:
    """Half a cosine up from ``initial`` to 1 at ``peak_at``, half a cosine down to ``final``.

    The defaults are those of PyTorch's ``OneCycleLR``. There the peak falls on a whole step,
    number ``0.3 * steps - 1``, and the momentum falls and rises against the learning rate; here
    the momentum stays. Smith's own cycle is made of straight lines.

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
    """A straight line up to the start of ``schedule``, which then fills the rest of the run.

        initial + (schedule(0) - initial) p / fraction        while p < fraction
        schedule((p - fraction) / (1 - fraction))             from there on

    The line does not start at 0, which would waste the first step.

    Raises:
      ValueError: if fraction is not in (0, 1) or initial is not in [0, 1].

    References:
      Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017,
      arXiv:1706.02677 (gradual warm-up, 2.2).
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
