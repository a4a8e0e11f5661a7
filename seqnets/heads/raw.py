"""Maps from the raw numbers of a model to the parameters of a distribution."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from seqnets.activations import softplus
from seqnets.checks import check_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Float

__all__ = ["SCALE_FLOOR", "check_target", "over_levels", "positive_scale", "widen_raw"]

SCALE_FLOOR = 1e-4
"""Smallest scale of a distribution; without it, the likelihood of a constant is unbounded."""


def widen_raw(raw: Float[Array, "*N S"], size: int) -> Float[Array, "*N S"]:
    """``raw`` in float32 or wider.

    Raises:
      ValueError: if the last axis of raw is not ``size`` long.
    """
    check_shape("raw", raw, (*np.shape(raw)[:-1], size), "last axis: head.size")
    return widen(raw)


def check_target(raw: Float[Array, "*N S"], target: Float[Array, "*N"], size: int) -> None:
    """Check that there are ``size`` raw numbers per target value.

    Raises:
      ValueError: if raw is not [..., size] for targets [...].
    """
    check_shape("raw", raw, (*np.shape(target), size), "the targets' and head.size")


def positive_scale(raw: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """``softplus(raw + log(e - 1)) + SCALE_FLOOR``, a positive scale, about 1 for raw = 0."""
    return softplus(raw + math.log(math.e - 1)) + SCALE_FLOOR


def over_levels(values: Float[np.ndarray, " Q"], like: Float[Array, "*N"]) -> Float[Array, "*N Q"]:
    """Repeat values [Q], one per level, for every element of ``like``, in its dtype."""
    return jnp.broadcast_to(jnp.asarray(values, like.dtype), (*like.shape, len(values)))
