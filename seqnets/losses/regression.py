"""Losses of real numbers, unreduced: element by element, shapes must be equal."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.activations import softplus
from seqnets.checks import check_range, check_same_shape
from seqnets.typing import Array, Float

__all__ = ["absolute_error", "huber", "log_cosh", "squared_error"]


def squared_error(prediction: Float[Array, "*S"], target: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``(prediction - target)²``, without the factor 1/2.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> from seqnets.reduction import weighted
      >>> float(weighted(squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))).mean())
      2.0
    """
    check_same_shape(prediction=prediction, target=target)
    return jnp.square(prediction - target)


def absolute_error(
    prediction: Float[Array, "*S"], target: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """``|prediction - target|``; the gradient at 0 is 0.

    Raises:
      ValueError: if the shapes differ.
    """
    check_same_shape(prediction=prediction, target=target)
    return jnp.abs(prediction - target)


def huber(
    prediction: Float[Array, "*S"], target: Float[Array, "*S"], delta: float = 1.0
) -> Float[Array, "*S"]:
    """Quadratic near 0, linear beyond ``delta``.

        e²/2                      where |e| <= delta
        delta (|e| - delta/2)     elsewhere,  e = prediction - target

    Raises:
      ValueError: if the shapes differ or delta is not positive.

    References:
      Huber, Robust Estimation of a Location Parameter, Annals of Statistics 53, 1964.
    """
    check_same_shape(prediction=prediction, target=target)
    check_range("delta", delta, 0, closed="neither")
    size = jnp.abs(prediction - target)
    inner = jnp.minimum(size, delta)  # squaring only this keeps large errors from overflowing
    return 0.5 * jnp.square(inner) + delta * (size - inner)


def log_cosh(prediction: Float[Array, "*S"], target: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``log cosh e``, computed as ``|e| + softplus(-2|e|) - log 2``, e = prediction - target.

    About e²/2 near 0 and |e| - log 2 far away.

    Raises:
      ValueError: if the shapes differ.
    """
    check_same_shape(prediction=prediction, target=target)
    size = jnp.abs(prediction - target)
    return size + softplus(-2.0 * size) - jnp.log(2.0).astype(size.dtype)
