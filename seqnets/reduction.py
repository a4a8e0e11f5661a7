"""Weighted sums that keep numerator and denominator separate until the final division.

Averaging the masked means of several devices is wrong if the devices hold different numbers of
real elements. A `Weighted` keeps the total and the weight separate, so that batches, chunks, and
devices are combined by addition, followed by a single division.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from seqnets.checks import check_shape
from seqnets.typing import Array, Float, Shaped

__all__ = ["Weighted", "weighted", "widen"]


class Weighted(NamedTuple):
    """A weighted sum and its total weight: ``mean = total / weight``.

    Add two of them to combine their elements (`+` adds both parts and does not concatenate).
    """

    total: Float[Array, "*S"]
    """Σ wᵢ xᵢ, a scalar."""
    weight: Float[Array, "*S"]
    """Σ wᵢ, a scalar."""

    def __add__(self, other: Weighted) -> Weighted:  # type: ignore[override]
        """Combine the elements of both."""
        return Weighted(self.total + other.total, self.weight + other.weight)

    def mean(self) -> Float[Array, "*S"]:
        """``total / weight``, or 0 where the weight is 0 (with a gradient of 0, not NaN)."""
        empty = self.weight == 0
        return jnp.where(empty, 0.0, self.total / jnp.where(empty, 1.0, self.weight))


def weighted(values: Shaped[Array, "*S"], weight: Shaped[Array, "*S"] | None = None) -> Weighted:
    """Sum values with weights into a `Weighted`, in float32 or wider.

    Elements with weight 0 have no effect, even if they are NaN, and their gradient is 0. (The
    computation of ``values`` must still have finite derivatives, since the chain rule multiplies
    them by that 0 and 0 · NaN is NaN. Replace missing data by finite numbers, not by NaN.)

    Args:
      values: e.g. unreduced losses, of any shape.
      weight: mask (bool) or weights (float or int, non-negative) with the shape of ``values`` or
        of its leading axes: with ``[B, T]``, all D elements of a vector in ``values [B, T, D]``
        have the same weight. None gives every element the weight 1.

    Returns:
      ``Weighted(Σ wᵢ xᵢ, Σ wᵢ)``.

    Raises:
      ValueError: if the shape of ``weight`` is not that of the leading axes of ``values``.

    Example:
      >>> import jax.numpy as jnp
      >>> float(weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])).mean())
      2.0
    """
    values = widen(values)
    if weight is None:
        return Weighted(jnp.sum(values), jnp.asarray(values.size, values.dtype))
    weight = jnp.asarray(weight)
    check_shape("weight", weight, values.shape[: weight.ndim], "leading axes of the values")
    weight = weight.astype(values.dtype).reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
    weight = jnp.broadcast_to(weight, values.shape)
    # The inner `where` keeps 0 · NaN out of the sum and out of its gradient.
    real = jnp.where(weight == 0, 0.0, values)
    return Weighted(jnp.sum(real * weight), jnp.sum(weight))


def widen(x: Any) -> Float[Array, "*S"]:
    """Convert to float32 unless the dtype is wider, as losses do before they compute and sum.

    Args:
      x: array of numbers or Booleans, of any shape.

    Returns:
      The array in float32, or unchanged if it is float64.
    """
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
