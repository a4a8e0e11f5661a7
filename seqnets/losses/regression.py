"""Element-wise regression losses, unreduced, in float32 or wider."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from seqnets.checks import check_range, check_same_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Float

__all__ = ["absolute_error", "huber", "log_cosh", "squared_error"]


def squared_error(prediction: Float[Array, "*S"], target: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``(prediction - target)²``, without a factor 1/2.

    Args:
      prediction: any shape.
      target: same shape.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> from seqnets.reduction import weighted
      >>> float(weighted(squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))).mean())
      2.0
    """
    return jnp.square(_error(prediction, target))


def absolute_error(
    prediction: Float[Array, "*S"], target: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """``|prediction - target|``; the gradient at 0 is 0.

    Args:
      prediction: any shape.
      target: same shape.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.
    """
    error = _error(prediction, target)
    return error * jnp.sign(error)  # the gradient of jnp.abs at 0 is 1


def huber(
    prediction: Float[Array, "*S"], target: Float[Array, "*S"], delta: float = 1.0
) -> Float[Array, "*S"]:
    """Huber loss: quadratic near 0, linear for errors larger than ``delta``.

        e²/2                      where |e| <= delta
        delta (|e| - delta/2)     elsewhere,  e = prediction - target

    Args:
      prediction: any shape.
      target: same shape.
      delta: the error at which the loss becomes linear, positive and finite.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ or delta is not positive and finite.

    References:
      Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35,
      1964.
    """
    check_range("delta", delta, 0, closed="neither")
    size = jnp.abs(_error(prediction, target))
    inner = jnp.minimum(size, delta)  # so that the square of a large error cannot overflow
    return 0.5 * jnp.square(inner) + delta * (size - inner)


def log_cosh(prediction: Float[Array, "*S"], target: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log cosh e``, e = prediction - target: e²/2 near 0, |e| - log 2 far away.

    It is computed as ``log1p(sinh² e) / 2`` where |e| < 1, else as
    ``|e| + log1p(exp(-2|e|)) - log 2``; the gradient is tanh e.

    Args:
      prediction: any shape.
      target: same shape.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.

    References:
      Saleh, Saleh, Statistical Properties of the Log-Cosh Loss Function Used in Machine
      Learning, 2022, arXiv:2208.04564.
    """
    return _log_cosh(_error(prediction, target))


def _error(prediction: Array, target: Array) -> Array:
    """``prediction - target``, widened before subtracting."""
    check_same_shape(prediction=prediction, target=target)
    return widen(prediction) - widen(target)


@jax.custom_jvp
def _log_cosh(e: Array) -> Array:
    """``log cosh e``, precise on both branches; JAX's derivative of |e| has no curvature at 0."""
    size = jnp.abs(e)
    near = 0.5 * jnp.log1p(jnp.square(jnp.sinh(jnp.minimum(size, 1))))
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.where(size < 1, near, far)


_log_cosh.defjvps(lambda tangent, _, e: tangent * jnp.tanh(e))
