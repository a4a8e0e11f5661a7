"""Optimizers with bias-corrected running moments of the gradient: Adam and its variants.

In the equations, θ is a parameter, g its gradient, η the learning rate, ε epsilon, and t the number
of the step, starting at 1; all operations are element-wise, and m and s start at 0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range
from seqnets.optimizers.decay import DecayMask, decoupled_decay
from seqnets.optimizers.hyperparameters import LearningRate, scale_by_rate
from seqnets.optimizers.precision import in_float32
from seqnets.typing import Array

__all__ = ["adam", "adamax", "adamw", "nadam"]


def adam(
    learning_rate: LearningRate,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam: steps from bias-corrected first and second moments of the gradient.

        m ← β₁ m + (1 - β₁) g
        s ← β₂ s + (1 - β₂) g²
        θ ← θ - η m̂ / (√ŝ + ε),   m̂ = m / (1 - β₁ᵗ),   ŝ = s / (1 - β₂ᵗ)

    As in Algorithm 1 of the paper and in PyTorch, ε is added to the *corrected* √ŝ, outside of the
    root. Keras adds its ε = 1e-7 to the uncorrected √s, which corresponds to ε / √(1 - β₂ᵗ) here:
    32 times as large at the first step, and the same in the limit.

    Args:
      learning_rate: η, a number or an Optax schedule.
      beta1: decay β₁ of the first moment, in [0, 1).
      beta2: decay β₂ of the second moment, in [0, 1).
      epsilon: ε, positive.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, beta1 or beta2 is not in [0, 1), or
        epsilon is not positive.

    References:
      Kingma, Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
    """
    _check(beta1, beta2, epsilon)
    scale = optax.scale_by_adam(beta1, beta2, epsilon)
    return in_float32(optax.chain(scale, scale_by_rate(learning_rate)))


def adamw(
    learning_rate: LearningRate,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    mask: DecayMask = "weights",
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay λ.

        θ ← θ - η (m̂ / (√ŝ + ε) + λ θ),   m̂ and ŝ as in `adam`

    As in PyTorch, the learning rate also scales the decay (in the paper, only its schedule does).
    PyTorch and Keras decay every parameter; here, the default ``mask`` excludes biases and norms.
    The default λ of Keras is 0.004.

    Args:
      learning_rate: η, a number or an Optax schedule.
      beta1: decay β₁ of the first moment, in [0, 1).
      beta2: decay β₂ of the second moment, in [0, 1).
      epsilon: ε, positive.
      weight_decay: λ, at least 0.
      mask: which parameters decay; see `DecayMask`.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: as in `adam`, if weight_decay is negative or not finite, or if mask is a string
        other than ``"weights"``; when updating, if params is not given.

    References:
      Loshchilov, Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv:1711.05101.
    """
    return in_float32(
        optax.chain(
            adam(1.0, beta1=beta1, beta2=beta2, epsilon=epsilon),
            decoupled_decay(weight_decay, mask),
            scale_by_rate(learning_rate, flip_sign=False),
        )
    )


def adamax(
    learning_rate: LearningRate,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Adamax: Adam with a running maximum instead of the second moment.

        m ← β₁ m + (1 - β₁) g
        u ← max(β₂ u, |g| + ε)
        θ ← θ - η m / ((1 - β₁ᵗ) u)

    As in PyTorch, ε is inside the maximum and decays with it. Keras uses u ← max(β₂ u, |g|) and
    divides by u + ε, with ε = 1e-7; the paper has no ε.

    Args:
      learning_rate: η, a number or an Optax schedule.
      beta1: decay β₁ of the first moment, in [0, 1).
      beta2: decay β₂ of the maximum, in [0, 1).
      epsilon: ε, positive.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, beta1 or beta2 is not in [0, 1), or
        epsilon is not positive.

    References:
      Kingma, Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980, 7.1.
    """
    _check(beta1, beta2, epsilon)
    scale = optax.scale_by_adamax(beta1, beta2, epsilon)
    return in_float32(optax.chain(scale, scale_by_rate(learning_rate)))


def nadam(
    learning_rate: LearningRate,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_decay: float = 0.004,
) -> optax.GradientTransformation:
    """Nadam: Adam with Nesterov's look-ahead and a warm-up of the momentum.

        μ_t = β₁ (1 - 0.96^(ψ t) / 2),   Π_t = μ_1 ⋯ μ_t
        m ← β₁ m + (1 - β₁) g
        s ← β₂ s + (1 - β₂) g²
        n = μ_{t+1} m / (1 - Π_{t+1}) + (1 - μ_t) g / (1 - Π_t)
        θ ← θ - η n / (√ŝ + ε),   ŝ = s / (1 - β₂ᵗ)

    As in PyTorch, ε is outside the root of the corrected ŝ. Keras is the same with ψ = 1 and
    ε = 1e-7. `optax.nadam` has no warm-up, μ_t = β₁.

    Args:
      learning_rate: η, a number or an Optax schedule.
      beta1: decay β₁ of the first moment, in [0, 1).
      beta2: decay β₂ of the second moment, in [0, 1).
      epsilon: ε, positive.
      momentum_decay: ψ, at least 0.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, beta1 or beta2 is not in [0, 1),
        epsilon is not positive, or momentum_decay is negative.

    References:
      Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop.
    """
    _check(beta1, beta2, epsilon)
    check_range("momentum_decay", momentum_decay, 0)
    scale = _scale_by_nadam(beta1, beta2, epsilon, momentum_decay)
    return in_float32(optax.chain(scale, scale_by_rate(learning_rate)))


def _check(beta1: float, beta2: float, epsilon: float) -> None:
    check_range("beta1", beta1, 0, 1, closed="left")
    check_range("beta2", beta2, 0, 1, closed="left")
    check_range("epsilon", epsilon, 0, closed="neither")


class _NadamState(NamedTuple):
    """Number of steps (int32), product of the momenta so far (float), and both moments."""

    step: Array
    product: Array
    mean: optax.Updates
    square: optax.Updates


def _scale_by_nadam(
    beta1: float, beta2: float, epsilon: float, momentum_decay: float
) -> optax.GradientTransformation:
    """``n / (√ŝ + ε)`` as in `nadam`."""

    def warm(step: Array) -> Array:
        return beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * step))

    def init(params: optax.Params) -> _NadamState:
        mean, square = optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        return _NadamState(jnp.zeros((), jnp.int32), jnp.ones(()), mean, square)

    def update(
        updates: optax.Updates, state: _NadamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _NadamState]:
        del params
        step = state.step + 1
        now, following = warm(step), warm(step + 1)
        product = state.product * now
        mean = optax.tree.update_moment(updates, state.mean, beta1, 1)
        square = optax.tree.update_moment(updates, state.square, beta2, 2)
        direct = (1 - now) / (1 - product)
        ahead = following / (1 - product * following)
        correction = 1 - beta2**step

        def scale(g: Array, m: Array, s: Array) -> Array:
            n = ahead * m + direct * g
            return (n / (jnp.sqrt(s / correction) + epsilon)).astype(g.dtype)

        updates = jax.tree.map(scale, updates, mean, square)
        return updates, _NadamState(step, product, mean, square)

    return optax.GradientTransformation(init, update)
