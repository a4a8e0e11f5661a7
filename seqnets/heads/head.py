"""Output distributions of real numbers, as values: how many raw numbers, and what they mean.

A model ends in a projection to ``head.size`` raw numbers per target value, which may be any; the
head maps them to a distribution. Raw zeros are near the standard normal distribution in every
head, which suits targets scaled to about zero mean and unit spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from seqnets.activations import softplus
from seqnets.checks import check_shape
from seqnets.typing import Array, Float, Key

__all__ = ["SCALE_FLOOR", "Head", "checked_raw", "normal_quantiles", "positive_scale"]

SCALE_FLOOR = 1e-4
"""Smallest scale of a distribution: on a constant series the likelihood has no maximum."""


class Head(Protocol):
    """A family of distributions and the map to it from ``size`` raw numbers.

    Everything is traceable by JAX, and computed in float32 or wider. Losses take finite targets
    only: put any number where a target is missing, and give it weight 0.
    """

    @property
    def size(self) -> int:
        """Raw numbers per target value, S."""
        ...

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Unreduced loss; ValueError unless raw is [..., S] for targets [...]."""
        ...

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """Quantiles of increasing levels in (0, 1), which are static."""
        ...

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """Expectation."""
        ...

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """One independent draw per target value."""
        ...


def checked_raw(raw: Float[Array, "*N S"], size: int) -> Float[Array, "*N S"]:
    """``raw [..., size]`` in float32 or wider."""
    raw = jnp.asarray(raw)
    check_shape("raw", raw, (*raw.shape[:-1], size), "last axis: head.size")
    return raw.astype(jnp.promote_types(raw.dtype, jnp.float32))


def positive_scale(raw: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """A positive scale, 1 at 0."""
    return softplus(raw + math.log(math.e - 1)) + SCALE_FLOOR


def normal_quantiles(levels: Sequence[float]) -> Float[np.ndarray, " Q"]:
    """Quantiles of the standard normal distribution, float64."""
    return np.array([NormalDist().inv_cdf(float(level)) for level in levels])
