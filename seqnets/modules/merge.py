"""Ways to merge the outputs of the two directions of a layer."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.checks import check_shape, did_you_mean
from seqnets.typing import Array, Float

__all__ = ["MERGES", "merge_directions"]

MERGES = {
    "concatenate": lambda a, b: jnp.concatenate([a, b], axis=-1),
    "sum": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "multiply": lambda a, b: a * b,
}


def merge_directions(
    merge: str, forward: Float[Array, "B T *H"], backward: Float[Array, "B T *H"]
) -> Float[Array, "B T *H"]:
    """Merge the outputs of both directions; zeros at padded steps remain zeros.

    Args:
      merge: ``"concatenate"`` (on the last axis), ``"sum"``, ``"mean"``, or ``"multiply"``.
      forward: outputs of the forward direction, [B, T, H].
      backward: outputs of the backward direction, with the same shape unless concatenated.

    Returns:
      [B, T, H], or [B, T, H_forward + H_backward] if they are concatenated.

    Raises:
      ValueError: if merge is unknown or the sizes differ.
    """
    if merge not in MERGES:
        raise ValueError(f"merge: {did_you_mean(str(merge), MERGES)}, got {merge!r}")
    if merge != "concatenate":
        why = f"as the forward direction, for merge={merge!r}"
        check_shape("outputs of the backward direction", backward, forward.shape, why)
    return MERGES[merge](forward, backward)
