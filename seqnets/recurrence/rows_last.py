"""Arrays whose last axis is the rows: ``[H, B]`` for one step, ``[T, H, B]`` for all.

`fused.py` explains why it uses this layout.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.typing import Array, Bool, Float, PyTree, Shaped

__all__ = ["first", "flat", "last", "select", "times"]


def last(x: Shaped[Array, "B *S"]) -> Shaped[Array, "*S B"]:
    """Move rows from the first axis to the last, so that ``[B, T, ...]`` has time first."""
    return jnp.moveaxis(x, 0, -1)


def first(x: Shaped[Array, "*S B"]) -> Shaped[Array, "B *S"]:
    """Move rows from the last axis to the first."""
    return jnp.moveaxis(x, -1, 0)


def flat(x: Float[Array, "T K B"]) -> Float[Array, "N K"]:
    """Reshape ``[T, K, B]`` to ``[T·B, K]``."""
    return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1])


def times(h: Float[Array, "*T H B"], factor: Float[Array, "H B"] | None) -> Float[Array, "*T H B"]:
    """``h [..., H, B]`` times the factor ``[H, B]``."""
    return h if factor is None else h * jnp.broadcast_to(factor.astype(h.dtype), h.shape)


def select(flags: Bool[Array, "*T B"], chosen: PyTree, otherwise: PyTree) -> PyTree:
    """``chosen`` where the flag is set, else ``otherwise``; flags ``[B]`` or ``[T, B]``."""

    def leaf(a: Array, b: Array) -> Array:
        shape = (*flags.shape[:-1], *(1,) * (b.ndim - flags.ndim), flags.shape[-1])
        return jnp.where(flags.reshape(shape), a, b)

    return jax.tree.map(leaf, chosen, otherwise)
