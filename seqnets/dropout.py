"""Dropout whose randomness follows the row, not the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_shape
from seqnets.typing import Array, Float, Key

__all__ = ["dropout", "fold_in", "fold_in_rows"]


def dropout(
    xs: Float[Array, " B *D"], keys: Key | None, rate: float, *, same_steps: bool = False
) -> Float[Array, " B *D"]:
    """Zero elements with probability ``rate`` and scale the others by ``1 / (1 - rate)``.

    Every row draws from a key of its own, so a row gets the same noise whichever device it
    is on and however many rows are beside it.

    Args:
      xs: [B, ...] float.
      keys: [B] random keys, or None for no dropout (evaluation).
      rate: probability of zero, in [0, 1).
      same_steps: of xs [B, T, ...] draw once a row, for all steps alike (variational dropout).

    Returns:
      [B, ...] of the dtype of xs.

    Raises:
      TypeError: if xs is not of floats.
      ValueError: if rate is not in [0, 1) or keys is not [B].

    References:
      Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting,
      JMLR 15, 2014 (here in the inverted form, scaled while training); Gal, Ghahramani, A
      Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016,
      arXiv:1512.05287 (the same at all steps).
    """
    check_dtype("xs", xs, "float")
    check_range("rate", rate, 0, 1, closed="left")
    if keys is None or rate == 0:
        return xs
    check_shape("keys", keys, xs.shape[:1], "one key a row")
    shape = (1, *xs.shape[2:]) if same_steps else xs.shape[1:]
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)
    return jnp.where(keep, xs / (1 - rate), jnp.zeros_like(xs))


def fold_in_rows(keys: Key | None, number: int) -> Key | None:
    """New keys for each row, different for each ``number`` (of a layer, say); None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def fold_in(key: Key | None, number: int) -> Key | None:
    """A new key for each ``number``; None stays None."""
    return None if key is None else jax.random.fold_in(key, number)
