"""Dropout with one random key per row, so that the result does not depend on the device."""

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

    Every row has its own key, so its noise depends neither on the device that holds it nor on the
    other rows of the batch.

    Args:
      xs: [B, ...] floats.
      keys: [B] typed random keys, or None for no dropout (evaluation).
      rate: probability of zero, in [0, 1).
      same_steps: for xs [B, T, ...], use the same mask at all time steps (variational dropout).

    Returns:
      [B, ...] with the dtype of xs.

    Raises:
      TypeError: if xs is not of floats, rate is not a number, or keys is not of typed keys.
      ValueError: if rate is not in [0, 1) or keys is not [B].

    References:
      Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting,
      JMLR 15, 2014 (here in the inverted form, scaled in training); Gal, Ghahramani, A
      Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016,
      arXiv:1512.05287 (variational dropout).
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
    """Raise unless ``keys`` is an array of typed random keys, one per row."""
    _check_random(name, keys)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"{name}: expected typed keys (jax.random.key), one per row, got {keys.dtype} of shape "
            f"{keys.shape}; jax.random.wrap_key_data converts raw keys"
        )
    check_shape(name, keys, (rows,), "one key per row")


def as_key(name: str, key: Key) -> Key:
    """The key as a typed random key; a raw one, from `jax.random.PRNGKey`, is wrapped.

    Raises:
      TypeError: if key is not a random key.
      ValueError: if key is an array of several keys.
    """
    _check_random(name, key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    check_shape(name, key, (), "one key")
    return key


def _check_random(name: str, key: Key) -> None:
    kinds = (jax.dtypes.prng_key, jnp.uint32)
    if not isinstance(key, jax.Array) or not any(jnp.issubdtype(key.dtype, k) for k in kinds):
        raise TypeError(f"{name}: expected a random key from jax.random.key, got {key!r}")


def fold_in_rows(keys: Key | None, number: int) -> Key | None:
    """New keys for all rows, different for each ``number``, e.g. of a layer; None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def fold_in(key: Key | None, number: int) -> Key | None:
    """A new key for each ``number``; None stays None."""
    return None if key is None else jax.random.fold_in(key, number)
