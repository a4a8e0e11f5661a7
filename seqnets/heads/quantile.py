"""Quantiles of fixed levels as an output distribution."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from seqnets import losses
from seqnets.activations import softplus
from seqnets.checks import check_levels, check_shape
from seqnets.heads.head import checked_raw, normal_quantiles
from seqnets.typing import Array, Float, Key

__all__ = ["QuantileHead"]


@dataclass(frozen=True)
class QuantileHead:
    """Quantiles of fixed levels, which cannot cross.

    With z the standard normal quantile and c the level nearest 1/2, over levels q_1 < ... < q_Q:

        x_c = raw_1 + z(q_c)
        x_{i+1} - x_i = (z(q_{i+1}) - z(q_i)) · softplus(raw_{i+1}) / log 2

    so raw_1 moves all quantiles, each of the others stretches one gap, and raw zeros are the
    quantiles of the standard normal distribution. Between the levels the quantile function is
    linear in the level; beyond the outermost ones it continues linearly in z, with normal tails
    (needed by `sample`, `mean`, and levels outside the given ones). One level alone is a point
    forecast.

    Args:
      levels: [Q] increasing, in (0, 1).

    Raises:
      ValueError: if the levels are not increasing in (0, 1).

    References:
      Wen, Torkkola, Narayanaswamy, Madeka, A Multi-Horizon Quantile Recurrent Forecaster, 2017,
      arXiv:1711.11053; there the quantiles are free and may cross.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(check_levels("levels", self.levels).tolist()))

    @property
    def size(self) -> int:
        """One raw number per level, Q."""
        return len(self.levels)

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Twice the pinball loss, the mean over the levels: |error| for the level 1/2 alone.

        Raises:
          ValueError: if raw is not [..., S] for targets [...].
        """
        check_shape("raw", raw, (*jnp.shape(target), self.size), "the targets' and head.size")
        knots = self._knots(raw)
        levels = jnp.asarray(self.levels, knots.dtype)
        return 2 * jnp.mean(losses.pinball(jnp.asarray(target, knots.dtype), knots, levels), -1)

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """Exact at the head's own levels, else between or beyond them.

        Raises:
          ValueError: if raw is not [..., S] or the levels are not increasing in (0, 1).
        """
        weights = np.stack([self._weights(level) for level in check_levels("levels", levels)])
        knots = self._knots(raw)
        quantiles = jnp.matmul(knots, jnp.asarray(weights.T, knots.dtype), precision="highest")
        return jax.lax.cummax(quantiles, axis=quantiles.ndim - 1)  # rounding may not cross them

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """The integral of the quantile function over all levels, tails included.

        Raises:
          ValueError: if raw is not [..., S].
        """
        knots = self._knots(raw)
        return knots @ jnp.asarray(self._mean_weights(), knots.dtype)

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """The quantile of a uniform level (inverse transform).

        Raises:
          ValueError: if raw is not [..., S].
        """
        knots = self._knots(raw)
        tiny = float(jnp.finfo(knots.dtype).eps) / 2  # as near to 0 as the largest draw is to 1
        level = jax.random.uniform(key, knots.shape[:-1], knots.dtype, minval=tiny)
        if self.size == 1:
            return knots[..., 0]
        q = jnp.asarray(self.levels, knots.dtype)
        low = jnp.clip(jnp.searchsorted(q, level, side="right") - 1, 0, self.size - 2)
        inside = (level >= q[0]) & (level <= q[-1])
        share = jnp.where(inside, _share(level, q, low), _share(ndtri(level), ndtri(q), low))
        left = jnp.take_along_axis(knots, low[..., None], axis=-1)[..., 0]
        right = jnp.take_along_axis(knots, low[..., None] + 1, axis=-1)[..., 0]
        return left + share * (right - left)

    def _knots(self, raw: Array) -> Array:
        """Quantiles [..., Q] of the head's levels, float32 or wider."""
        raw = checked_raw(raw, self.size)
        z = normal_quantiles(self.levels)
        center = int(np.argmin(np.abs(np.subtract(self.levels, 0.5))))
        unit = jnp.asarray(np.diff(z) / math.log(2), raw.dtype)
        gaps = softplus(raw[..., 1:]) * jnp.broadcast_to(unit, raw[..., 1:].shape)
        # From the center outwards, so that neither side moves with the gaps of the other.
        above = jnp.cumsum(gaps[..., center:], axis=-1)
        below = jnp.cumsum(gaps[..., :center][..., ::-1], axis=-1)[..., ::-1]
        middle = raw[..., :1] + z[center].astype(raw.dtype)
        return jnp.concatenate([middle - below, middle, middle + above], axis=-1)

    def _weights(self, level: float) -> np.ndarray:
        """Weights [Q] with which the quantile of any level is a sum of the head's quantiles."""
        if self.size == 1:
            return np.ones(1)
        low = min(max(bisect_right(self.levels, level) - 1, 0), self.size - 2)
        at = np.array([self.levels[low], self.levels[low + 1], level])
        if not self.levels[0] <= level <= self.levels[-1]:
            at = normal_quantiles(at.tolist())
        share = (at[2] - at[0]) / (at[1] - at[0])
        weights = np.zeros(self.size)
        weights[low : low + 2] = 1 - share, share
        return weights

    def _mean_weights(self) -> np.ndarray:
        """`_weights` integrated over the levels 0 to 1; ∫ z dq over a tail is ∓ its density."""
        if self.size == 1:
            return np.ones(1)
        q, z = np.array(self.levels), normal_quantiles(self.levels)
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        weights = np.zeros(self.size)
        weights[:-1] += np.diff(q) / 2
        weights[1:] += np.diff(q) / 2
        slope = np.array([-1.0, 1.0])
        weights[0] += q[0]
        weights[:2] += slope * (-density[0] - z[0] * q[0]) / (z[1] - z[0])
        weights[-1] += 1 - q[-1]
        weights[-2:] += slope * (density[-1] - z[-1] * (1 - q[-1])) / (z[-1] - z[-2])
        return weights


def _share(at: Array, knots: Array, low: Array) -> Array:
    """How far ``at`` is on the way from ``knots[low]`` to the next one, 0 to 1."""
    return (at - knots[low]) / (knots[low + 1] - knots[low])
