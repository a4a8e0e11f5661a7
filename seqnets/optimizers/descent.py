"""Gradient descent, plain and with momentum.

In the equations, θ is a parameter, g its gradient, η the learning rate, and μ the momentum.
"""

from __future__ import annotations

import optax

from seqnets.checks import check_range
from seqnets.optimizers.hyperparameters import LearningRate, scale_by_rate
from seqnets.optimizers.precision import in_float32

__all__ = ["momentum", "nesterov", "sgd"]


def sgd(learning_rate: LearningRate) -> optax.GradientTransformation:
    """Gradient descent, ``θ ← θ - η g``, as in PyTorch and Keras.

    Args:
      learning_rate: η, a number or an Optax schedule.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite.
    """
    return in_float32(scale_by_rate(learning_rate))


def momentum(learning_rate: LearningRate, *, momentum: float = 0.9) -> optax.GradientTransformation:
    """Gradient descent with momentum (the heavy ball method).

        v ← μ v + g
        θ ← θ - η v

    This is the form of PyTorch (without dampening). Keras accumulates ``η v`` instead of ``v``,
    which differs only if the learning rate changes: Keras does not rescale the accumulated part.

    Args:
      learning_rate: η, a number or an Optax schedule.
      momentum: μ, in [0, 1).

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, or momentum is not in [0, 1).

    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR
      Computational Mathematics and Mathematical Physics 4, 1964.
    """
    return _with_trace(learning_rate, momentum, nesterov=False)


def nesterov(learning_rate: LearningRate, *, momentum: float = 0.9) -> optax.GradientTransformation:
    """Gradient descent with Nesterov's momentum, with the gradient evaluated at θ.

        v ← μ v + g
        θ ← θ - η (g + μ v)

    This is the form of PyTorch and Keras: the update of Sutskever et al., with θ at the look-ahead
    point. Keras differs as described in `momentum`.

    Args:
      learning_rate: η, a number or an Optax schedule.
      momentum: μ, in [0, 1).

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: if learning_rate is negative or not finite, or momentum is not in [0, 1).

    References:
      Sutskever, Martens, Dahl, Hinton, On the importance of initialization and momentum in deep
      learning, ICML 2013.
    """
    return _with_trace(learning_rate, momentum, nesterov=True)


def _with_trace(
    rate: LearningRate, momentum: float, *, nesterov: bool
) -> optax.GradientTransformation:
    check_range("momentum", momentum, 0, 1, closed="left")
    return in_float32(optax.chain(optax.trace(momentum, nesterov), scale_by_rate(rate)))
