"""Dropout whose randomness follows the row, not the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_range, check_shape
from seqnets.typing import Array, Float, Key

__all__ = ["as_key", "check_keys", "dropout", "fold_in", "fold_in_rows"]


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
      TypeError: if xs is not of floats, or keys is not of typed keys.
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
    check_keys("keys", keys, xs.shape[0])
    shape = (1, *xs.shape[2:]) if same_steps else xs.shape[1:]
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)
    return jnp.where(keep, xs / (1 - rate), jnp.zeros_like(xs))


def check_keys(name: str, keys: Key, rows: int) -> None:
    """Raise unless there is a typed random key for each of a number of rows."""
    _check_random(name, keys)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"{name}: expected typed keys (jax.random.key), one a row, got {keys.dtype} of shape "
            f"{keys.shape}; jax.random.wrap_key_data makes them of raw ones"
        )
    check_shape(name, keys, (rows,), "one key a row")


def as_key(name: str, key: Key) -> Key:
    """One typed random key; a raw one, of `jax.random.PRNGKey`, is wrapped.

    Raises:
      TypeError: if it is not a random key.
      ValueError: if it is more than one.
    """
    _check_random(name, key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    check_shape(name, key, (), "one key")
    return key


def _check_random(name: str, key: Key) -> None:
    kinds = (jax.dtypes.prng_key, jnp.uint32)
    if not isinstance(key, jax.Array) or not any(jnp.issubdtype(key.dtype, k) for k in kinds):
        raise TypeError(f"{name}: expected a random key of jax.random.key, got {key!r}")


def fold_in_rows(keys: Key | None, number: int) -> Key | None:
    """New keys for each row, different for each ``number`` (of a layer, say); None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def fold_in(key: Key | None, number: int) -> Key | None:
    """A new key for each ``number``; None stays None."""
    return None if key is None else jax.random.fold_in(key, number)
