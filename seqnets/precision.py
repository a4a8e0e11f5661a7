"""Arithmetic for narrow floats (float16, bfloat16) in float32, with one rounding at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from seqnets.typing import Array, Shaped

__all__ = ["rounded_once", "widened"]


def widened(x: Shaped[Array, "*S"]) -> Shaped[Array, "*S"]:
    """Floats with fewer than 32 bits as float32; other arrays unchanged."""
    dtype = jnp.result_type(x)
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(x, jnp.float32) if narrow else x


def rounded_once(narrow: Callable[..., Any] | None = None) -> Callable[[Any], Any]:
    """Decorator for a function that returns an array with the dtype of its first argument.

    For narrow floats, the result and its derivatives are computed in float32 and rounded. Other
    dtypes are passed to the function unchanged.

    Args:
      narrow: function to call instead for narrow floats; it receives float32. It may be slower, or
        less accurate in the last digits of float32, than the decorated function.

    Returns:
      A decorator.
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
