"""Masks from the lengths of rows that are padded on the right."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_rank, check_shape
from seqnets.typing import Array, Bool, Float, Int

__all__ = ["lengths_to_mask", "mask_of"]


def lengths_to_mask(lengths: Int[Array, " B"], steps: int) -> Bool[Array, "B T"]:
    """The mask of rows padded on the right: True at the first ``lengths[b]`` steps of row b.

    Args:
      lengths: [B] integers in [0, steps].
      steps: padded length T, in time steps.

    Returns:
      [B, T] bool.

    Raises:
      ValueError: if lengths is not [B], or out of range (not checked under `jax.jit`).
      TypeError: if lengths is not of integers.
    """
    lengths = jnp.asarray(lengths)
    check_rank("lengths", lengths, 1, "B")
    check_dtype("lengths", lengths, "int")
    if not isinstance(lengths, jax.core.Tracer) and lengths.size:
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > steps:
            raise ValueError(f"lengths: expected integers in [0, {steps}], got {low} to {high}")
    return jnp.arange(steps)[None, :] < lengths[:, None]


def mask_of(
    mask: Bool[Array, "B T"] | None,
    lengths: Int[Array, " B"] | None,
    xs: Float[Array, "B T *D"],
) -> Bool[Array, "B T"] | None:
    """The mask of the rows of xs, from their lengths, the mask itself, or neither.

    Raises:
      ValueError: if both are given, or lengths is not [B] or not in [0, T].
      TypeError: if lengths is not of integers.
    """
    if lengths is None:
        return mask
    if mask is not None:
        raise ValueError("lengths: expected None where a mask is given, got both")
    check_shape("lengths", lengths, xs.shape[:1], "rows of xs")
    return lengths_to_mask(lengths, xs.shape[1])
