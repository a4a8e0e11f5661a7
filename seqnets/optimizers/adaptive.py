"""Steps divided by a running size of the gradient: Adagrad, RMSprop, Adadelta.

In the formulas θ is a parameter, g its gradient, η the learning rate, ρ the decay and ε epsilon;
all operations are element-wise and every accumulator starts at 0 unless it says otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range
from seqnets.optimizers.hyperparameters import LearningRate, is_zero, scale_by_rate
from seqnets.optimizers.precision import in_float32
from seqnets.typing import Array

__all__ = ["adadelta", "adagrad", "rmsprop"]


def adagrad(
    learning_rate: LearningRate, *, initial_accumulator: float = 0.0, epsilon: float = 1e-10
) -> optax.GradientTransformation:
    """Adagrad: every step divided by the root of all squared gradients so far.

        s ← s + g²                          s starts at initial_accumulator
        θ ← θ - η g / (√s + ε)

    PyTorch's: ε is outside the root, the sum starts at 0. Keras has √(s + ε) with ε = 1e-7, and
    its sum starts at 0.1; so has `optax.adagrad`.

    Raises:
      ValueError: if learning_rate or initial_accumulator is negative or not finite, or epsilon
        is not positive.

    References:
      Duchi, Hazan, Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization, JMLR 12, 2011.
    """
    check_range("initial_accumulator", initial_accumulator, 0, math.inf, closed="left")
    check_range("epsilon", epsilon, 0, closed="neither")
    scale = _scale_by_total(initial_accumulator, epsilon)
    return in_float32(optax.chain(scale, scale_by_rate(learning_rate)))


def rmsprop(
    learning_rate: LearningRate,
    *,
    decay: float = 0.99,
    momentum: float = 0.0,
    epsilon: float = 1e-8,
    centred: bool = False,
) -> optax.GradientTransformation:
    """RMSprop: every step divided by a running root mean square of the gradient.

        s ← ρ s + (1 - ρ) g²
        m ← ρ m + (1 - ρ) g                 if centred, else m = 0
        v ← μ v + g / (√(s - m²) + ε)       μ momentum
        θ ← θ - η v

    PyTorch's: ε is outside the root. Keras has √(s - m² + ε) with ε = 1e-7, its decay is 0.9,
    and its momentum keeps ``η v`` (see `momentum`); `optax.rmsprop` by default has ε inside as
    well. Rounding can make ``s - m²`` negative when the gradient hardly changes: it counts as 0
    here, where PyTorch and Optax give NaN.

    Raises:
      ValueError: if learning_rate is negative or not finite, decay or momentum is not in [0, 1),
        or epsilon is not positive.

    References:
      Tieleman, Hinton, Lecture 6.5, COURSERA: Neural Networks for Machine Learning, 2012.
      Graves, Generating Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850
      (centred, with momentum; there ε is inside the root).
    """
    check_range("decay", decay, 0, 1, closed="left")
    check_range("momentum", momentum, 0, 1, closed="left")
    check_range("epsilon", epsilon, 0, closed="neither")
    scale = (
        _scale_by_deviation(decay, epsilon)
        if centred
        else optax.scale_by_rms(decay, epsilon, eps_in_sqrt=False)
    )
    trace = [] if is_zero("momentum", momentum) else [optax.trace(momentum)]
    return in_float32(optax.chain(scale, *trace, scale_by_rate(learning_rate)))


def adadelta(
    learning_rate: LearningRate = 1.0, *, decay: float = 0.9, epsilon: float = 1e-6
) -> optax.GradientTransformation:
    """Adadelta: RMSprop with the step measured in the parameters' own units.

        s ← ρ s + (1 - ρ) g²
        u ← g √(d + ε) / √(s + ε)
        d ← ρ d + (1 - ρ) u²
        θ ← θ - η u

    ε is inside both roots, as in PyTorch and Keras; it is also what starts the first step.
    Keras' defaults are other: learning rate 0.001, decay 0.95, ε = 1e-7.

    Raises:
      ValueError: if learning_rate is negative or not finite, decay is not in [0, 1), or epsilon
        is not positive.

    References:
      Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, arXiv:1212.5701 (η = 1).
    """
    check_range("decay", decay, 0, 1, closed="left")
    check_range("epsilon", epsilon, 0, closed="neither")
    scale = optax.scale_by_adadelta(decay, epsilon)
    return in_float32(optax.chain(scale, scale_by_rate(learning_rate)))


class _TotalState(NamedTuple):
    """Sum of squared gradients, shaped like the parameters."""

    total: optax.Updates


def _scale_by_total(initial: float, epsilon: float) -> optax.GradientTransformation:
    """``g / (√Σg² + ε)``; Optax's own has its epsilon inside the root."""

    def init(params: optax.Params) -> _TotalState:
        return _TotalState(optax.tree.full_like(params, initial))

    def update(
        updates: optax.Updates, state: _TotalState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _TotalState]:
        del params
        total = jax.tree.map(lambda s, g: s + jnp.square(g), state.total, updates)
        updates = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + epsilon), updates, total)
        return updates, _TotalState(total)

    return optax.GradientTransformation(init, update)


class _DeviationState(NamedTuple):
    """Running mean and mean square of the gradient, shaped like the parameters."""

    mean: optax.Updates
    square: optax.Updates


def _scale_by_deviation(decay: float, epsilon: float) -> optax.GradientTransformation:
    """``g / (√(s - m²) + ε)`` with the difference kept from falling below 0."""

    def init(params: optax.Params) -> _DeviationState:
        return _DeviationState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def scale(g: Array, mean: Array, square: Array) -> Array:
        variance = jnp.maximum(square - jnp.square(mean), 0)
        return g / (jnp.sqrt(variance) + epsilon)

    def update(
        updates: optax.Updates, state: _DeviationState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _DeviationState]:
        del params
        mean = optax.tree.update_moment(updates, state.mean, decay, 1)
        square = optax.tree.update_moment(updates, state.square, decay, 2)
        return jax.tree.map(scale, updates, mean, square), _DeviationState(mean, square)

    return optax.GradientTransformation(init, update)
