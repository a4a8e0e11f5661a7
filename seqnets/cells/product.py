"""Matrix products with narrow factors and wide sums, in values and in derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seqnets.typing import Array, Float
from seqnets.varying import vary_alike

__all__ = ["factor_dtype", "multiply", "product", "sum_dtype"]


def product(x: Float[Array, "*B D"], w: Float[Array, "D H"]) -> Float[Array, "*B H"]:
    """``x w`` over the last axis of x, both factors in the dtype of the weights if it is narrower.

    The sums and the result are float32 or wider. The engine casts weights to a narrow dtype inside
    the loop over time, so that their gradient is summed over time in the wide dtype.

    Args:
      x: inputs or states, [..., D].
      w: weights, [D, H].

    Returns:
      [..., H].
    """
    return multiply(x, w, factor_dtype(x, w), sum_dtype(x, w))


def multiply(
    x: Float[Array, "*B D"], w: Float[Array, "D H"], factors: Any, sums: Any
) -> Float[Array, "*B H"]:
    """``x w`` over the last axis of x, multiplied in one dtype and summed in another.

    If the factors are narrower than the sums, the products in the derivative use the same two
    dtypes, and forward-mode differentiation is not supported.

    Args:
      x: inputs or states.
      w: weights.
      factors: dtype of both factors.
      sums: dtype of the sums and of the result.
    """
    x, w = x.astype(factors), w.astype(factors)
    if jnp.finfo(factors).bits < jnp.finfo(sums).bits:
        return _mixed(sums, *vary_alike((x, w)))
    return jnp.matmul(x, w, preferred_element_type=sums)


def factor_dtype(x: Float[Array, "*S"], w: Float[Array, "*S"]) -> jnp.dtype:
    """The dtype of both factors: that of w if it is narrower, else the promoted dtype."""
    narrower = jnp.finfo(w.dtype).bits < jnp.finfo(x.dtype).bits
    return w.dtype if narrower else jnp.result_type(x, w)


def sum_dtype(x: Float[Array, "*S"], w: Float[Array, "*S"]) -> jnp.dtype:
    """The dtype of the sums: float32, or the promoted dtype of the factors if it is wider."""
    return jnp.result_type(jnp.float32, x, w)


def _mixed(sums: Any, x: Array, w: Array) -> Array:
    """``x w`` whose derivative also multiplies in the dtype of x and w.

    The derivative of JAX would multiply the wide cotangent by the narrow factor.
    """

    @jax.custom_vjp
    def run(x: Array, w: Array) -> Array:
        return jnp.matmul(x, w, preferred_element_type=sums)

    def backward(residuals: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
        x, w = residuals
        d = d.astype(x.dtype)
        rows = x.reshape(-1, x.shape[-1]), d.reshape(-1, d.shape[-1])
        d_x, d_w = _mixed(sums, d, w.T), _mixed(sums, rows[0].T, rows[1])
        return d_x.astype(x.dtype), d_w.astype(w.dtype)

    run.defvjp(lambda x, w: (run(x, w), (x, w)), backward)
    return run(x, w)
