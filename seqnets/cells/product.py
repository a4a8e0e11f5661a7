"""The product of a cell: narrow factors, wide sums."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.typing import Array, Float

__all__ = ["factor_dtype", "product", "sum_dtype"]


def product(x: Float[Array, "*B D"], w: Float[Array, "D H"]) -> Float[Array, "*B H"]:
    """``x w`` over the last axis of x, both factors in the dtype of the weights if it is narrower.

    The sums are in float32 or wider, and so is the result. The engine casts weights to a narrow
    dtype inside the loop over time, so that their gradient is summed over time in the wide one.

    Args:
      x: inputs or states.
      w: weights.
    """
    factors = factor_dtype(x, w)
    return jnp.matmul(x.astype(factors), w.astype(factors), preferred_element_type=sum_dtype(x, w))


def factor_dtype(x: Float[Array, "*S"], w: Float[Array, "*S"]) -> jnp.dtype:
    """The dtype of both factors: that of the weights, unless the inputs' is narrower or equal."""
    narrower = jnp.finfo(w.dtype).bits < jnp.finfo(x.dtype).bits
    return w.dtype if narrower else jnp.result_type(x, w)


def sum_dtype(x: Float[Array, "*S"], w: Float[Array, "*S"]) -> jnp.dtype:
    """The dtype of sums: float32, or that of the factors if it is wider."""
    return jnp.result_type(jnp.float32, x, w)
