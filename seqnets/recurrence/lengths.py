"""Rows of unequal length, padded on the right: their lengths as a mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_rank, check_shape
from seqnets.typing import Array, Bool, Float, Int

__all__ = ["lengths_to_mask", "mask_of"]


def lengths_to_mask(lengths: Int[Array, " B"], steps: int) -> Bool[Array, "B T"]:
    """Mask of rows padded on the right: True at the first ``lengths[b]`` of ``steps`` steps.

    Args:
      lengths: [B] integers in [0, steps].
      steps: padded length T.

    Raises:
      ValueError: if lengths is not [B], or one is out of range (which is not seen under `jax.jit`).
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
    """The mask of the rows of xs, of which the user gives the lengths, the mask, or neither.

    Raises:
      ValueError: if both are given, or the lengths are not one a row within the steps of xs.
      TypeError: if lengths is not of integers.
    """
    if lengths is None:
        return mask
    if mask is not None:
        raise ValueError("lengths: expected None where a mask is given, got both")
    check_shape("lengths", lengths, xs.shape[:1], "rows of xs")
    return lengths_to_mask(lengths, xs.shape[1])
