"""One reduction type: sums travel with their weights, and are divided once, late.

A masked mean taken on each device and then averaged over devices is wrong whenever the devices
hold unequal numbers of real elements. A `Weighted` keeps numerator and denominator apart, so
that batches, chunks and devices are combined by addition and the one division comes last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from seqnets.checks import check_shape
from seqnets.typing import Array, Float, Shaped

__all__ = ["Weighted", "weighted", "widen"]


class Weighted(NamedTuple):
    """A sum and the weight it stands for: ``mean = total / weight``.

    Add two of them to combine their elements (`+` is addition of both parts, not tuple
    concatenation).
    """

    total: Float[Array, "*S"]
    """Σ wᵢ xᵢ, a scalar."""
    weight: Float[Array, "*S"]
    """Σ wᵢ, a scalar."""

    def __add__(self, other: Weighted) -> Weighted:  # type: ignore[override]
        """Combine the elements of both."""
        return Weighted(self.total + other.total, self.weight + other.weight)

    def mean(self) -> Float[Array, "*S"]:
        """``total / weight``, and 0 where the weight is 0 (with a gradient of 0, not NaN)."""
        empty = self.weight == 0
        return jnp.where(empty, 0.0, self.total / jnp.where(empty, 1.0, self.weight))


def weighted(values: Shaped[Array, "*S"], weight: Shaped[Array, "*S"] | None = None) -> Weighted:
    """Reduce unreduced losses to a `Weighted`, in float32 or wider.

    Elements of weight 0 never matter: not their value, NaN included, and the gradient that they
    get is 0. (What computed them still has to be finite: the chain rule multiplies that 0 by
    its derivative, and 0 · NaN is NaN. So put a number, not NaN, where data are missing.)

    Args:
      values: any shape.
      weight: mask (bool) or weights (float or int, non-negative) of the shape of ``values``, or
        of its leading axes: ``[B, T]`` weighs whole vectors of ``values [B, T, D]``, each of the
        D elements counting. None weighs every element 1.

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
    """``x`` in float32 or wider, the types in which losses are computed and added up."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
