"""How the outputs of the two directions of a layer become one."""

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
    """The outputs of both directions as one; zeros at padded steps stay zeros.

    Args:
      merge: ``"concatenate"`` (side by side), ``"sum"``, ``"mean"``, or ``"multiply"``.
      forward: outputs of the forward direction.
      backward: outputs of the backward direction; of the same size unless concatenated.

    Raises:
      ValueError: if there is no such way, or the sizes differ.
    """
    if merge not in MERGES:
        raise ValueError(f"merge: {did_you_mean(str(merge), MERGES)}, got {merge!r}")
    if merge != "concatenate":
        why = f"as the forward direction, for merge={merge!r}"
        check_shape("outputs of the backward direction", backward, forward.shape, why)
    return MERGES[merge](forward, backward)
