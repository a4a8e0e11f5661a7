"""Optimizers that divide by an accumulated size of the gradient: Adagrad, RMSprop, Adadelta.

In the equations, θ is a parameter, g its gradient, η the learning rate, ρ the decay, and ε epsilon;
all operations are element-wise, and accumulators start at 0 unless stated otherwise.
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
    """Adagrad: steps divided by the root of the sum of all squared gradients.

        s ← s + g²                          s starts at initial_accumulator
        θ ← θ - η g / (√s + ε)

    As in PyTorch, ε is outside the root and the sum starts at 0. Keras and `optax.adagrad` use
    √(s + ε) with ε = 1e-7, and the sum starts at 0.1.

    Args:
      learning_rate: η, a number or an Optax schedule.
      initial_accumulator: initial value of s, at least 0.
      epsilon: ε, positive.

    Returns:
      An Optax gradient transformation.

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
    centered: bool = False,
) -> optax.GradientTransformation:
    """RMSprop: steps divided by a running root mean square of the gradient.

        s ← ρ s + (1 - ρ) g²
        m ← ρ m + (1 - ρ) g                 if centered, else m = 0
        v ← μ v + g / (√(s - m²) + ε)
        θ ← θ - η v

    As in PyTorch, ε is outside the root. Keras uses √(s - m² + ε) with ε = 1e-7 and a decay of 0.9,
    and its momentum accumulates ``η v`` (see `momentum`); by default, `optax.rmsprop` has ε inside
    the root, too. If the gradient hardly changes, rounding can make ``s - m²`` negative; it is then
    replaced by 0, whereas PyTorch and Optax return NaN.

    Args:
      learning_rate: η, a number or an Optax schedule.
      decay: ρ, in [0, 1).
      momentum: μ, in [0, 1).
      epsilon: ε, positive.
      centered: if True, subtract the square of the running mean of the gradient.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, decay or momentum is not in [0, 1),
        or epsilon is not positive.

    References:
      Tieleman, Hinton, Lecture 6.5, COURSERA: Neural Networks for Machine Learning, 2012.
      Graves, Generating Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850
      (centered, with momentum; there ε is inside the root).
    """
    check_range("decay", decay, 0, 1, closed="left")
    check_range("momentum", momentum, 0, 1, closed="left")
    check_range("epsilon", epsilon, 0, closed="neither")
    scale = (
        _scale_by_deviation(decay, epsilon)
        if centered
        else optax.scale_by_rms(decay, epsilon, eps_in_sqrt=False)
    )
    trace = [] if is_zero("momentum", momentum) else [optax.trace(momentum)]
    return in_float32(optax.chain(scale, *trace, scale_by_rate(learning_rate)))


def adadelta(
    learning_rate: LearningRate = 1.0, *, decay: float = 0.9, epsilon: float = 1e-6
) -> optax.GradientTransformation:
    """Adadelta: RMSprop with steps in the units of the parameters.

        s ← ρ s + (1 - ρ) g²
        u ← g √(d + ε) / √(s + ε)
        d ← ρ d + (1 - ρ) u²
        θ ← θ - η u

    As in PyTorch and Keras, ε is inside both roots; the first step is nonzero only because of it.
    The defaults of Keras differ: a learning rate of 0.001, a decay of 0.95, and ε = 1e-7.

    Args:
      learning_rate: η, a number or an Optax schedule.
      decay: ρ, in [0, 1).
      epsilon: ε, positive.

    Returns:
      An Optax gradient transformation.

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
    """``g / (√Σg² + ε)``; in Optax, ε is inside the root."""

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
    """``g / (√(s - m²) + ε)``, with ``s - m²`` clipped at 0."""

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
