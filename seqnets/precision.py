"""Narrow floats (float16, bfloat16): arithmetic in float32, one rounding at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from seqnets.typing import Array, Shaped

__all__ = ["rounded_once", "widened"]


def widened(x: Shaped[Array, "*S"]) -> Shaped[Array, "*S"]:
    """Floats of fewer than 32 bits as float32; all else as it is."""
    dtype = jnp.result_type(x)
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(x, jnp.float32) if narrow else x


def rounded_once(narrow: Callable[..., Any] | None = None) -> Callable[[Any], Any]:
    """Decorator of a function of an array, whose dtype the result has.

    If the array is of narrow floats, the result is computed in float32 and rounded; so are the
    derivatives. Other dtypes go straight to the function.

    Args:
      narrow: what computes narrow floats in place of the function, given float32. It may cost more
        than is right for float32, whose last digits are lost in the rounding.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(x: Any, *arguments: Any, **options: Any) -> Any:
            wide = widened(x)
            if wide is x:
                return function(x, *arguments, **options)
            result = (narrow or function)(wide, *arguments, **options)
            return result.astype(jnp.result_type(x))

        return wrapped

    return decorate
