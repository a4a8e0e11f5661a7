"""A distribution given by its quantiles at fixed levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri as traced_ndtri
from scipy.special import ndtri

from seqnets import losses
from seqnets.activations import softplus
from seqnets.checks import check_levels
from seqnets.heads.raw import check_target, over_levels, widen_raw
from seqnets.typing import Array, Float, Key

__all__ = ["QuantileHead"]


@dataclass(frozen=True)
class QuantileHead:
    """Quantiles at fixed levels, which cannot cross.

    With levels q_1 < ... < q_Q, c the index of the level nearest to 1/2, and z the standard normal
    quantile function:

        x_c = raw_1 + z(q_c)
        x_{i+1} - x_i = (z(q_{i+1}) - z(q_i)) · softplus(raw_{i+1}) / log 2

    So raw_1 shifts all quantiles, each other raw number stretches one gap, and raw zeros give the
    quantiles of the standard normal distribution. Between the levels, the quantile function is
    linear in the level. Outside of them it is linear in z, with normal tails, which `sample`,
    `mean`, and `quantiles` need. A head with a single level is a point forecast.

    Args:
      levels: [Q] increasing numbers in (0, 1).

    Raises:
      TypeError: if a level is not a number.
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
        """Raw numbers per target value: one per level, Q."""
        return len(self.levels)

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Twice the mean of the pinball loss over the levels; |error| if the only level is 1/2.

        Raises:
          ValueError: if raw is not [..., S] for targets [...].
        """
        check_target(raw, target, self.size)
        knots = self._knots(raw)
        levels = jnp.asarray(self.levels, knots.dtype)
        return 2 * jnp.mean(losses.pinball(jnp.asarray(target, knots.dtype), knots, levels), -1)

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """Quantiles: exact at the levels of the head, interpolated and extrapolated elsewhere.

        Raises:
          ValueError: if raw is not [..., S] or the levels are not increasing in (0, 1).
        """
        asked, knots = check_levels("levels", levels), self._knots(raw)
        if self.size == 1:
            return jnp.broadcast_to(knots, (*knots.shape[:-1], len(asked)))
        anchor, gap, share = self._positions(asked)
        left, right = knots[..., gap], knots[..., gap + 1]
        values = knots[..., anchor] + over_levels(share, knots[..., 0]) * (right - left)
        # Rounding must not raise a value between two knots above the right knot.
        below_last = jnp.broadcast_to(asked < self.levels[-1], values.shape)
        return jnp.where(below_last, jnp.minimum(values, right), values)

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """The mean: the integral of the quantile function over all levels, including the tails.

        Raises:
          ValueError: if raw is not [..., S].
        """
        knots = self._knots(raw)
        return knots @ jnp.asarray(self._mean_weights(), knots.dtype)

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """One draw per target value: the quantile at a uniform level (inverse transform).

        Raises:
          ValueError: if raw is not [..., S].
        """
        knots = self._knots(raw)
        tiny = float(jnp.finfo(knots.dtype).eps) / 2  # as close to 0 as the largest draw is to 1
        level = jax.random.uniform(key, knots.shape[:-1], knots.dtype, minval=tiny)
        if self.size == 1:
            return knots[..., 0]
        q = jnp.asarray(self.levels, knots.dtype)
        low = jnp.clip(jnp.searchsorted(q, level, side="right") - 1, 0, self.size - 2)
        inside = (level >= q[0]) & (level <= q[-1])
        beyond = _share(traced_ndtri(level), traced_ndtri(q), low)
        share = jnp.where(inside, _share(level, q, low), beyond)
        left = jnp.take_along_axis(knots, low[..., None], axis=-1)[..., 0]
        right = jnp.take_along_axis(knots, low[..., None] + 1, axis=-1)[..., 0]
        return left + share * (right - left)

    def _knots(self, raw: Array) -> Array:
        """Quantiles [..., Q] at the levels of the head, float32 or wider."""
        raw = widen_raw(raw, self.size)
        z = ndtri(self.levels)
        center = int(np.argmin(np.abs(np.subtract(self.levels, 0.5))))
        gaps = softplus(raw[..., 1:]) * over_levels(np.diff(z) / math.log(2), raw[..., 0])
        # Summed from the center outwards, so that neither side depends on the gaps of the other.
        above = jnp.cumsum(gaps[..., center:], axis=-1)
        below = jnp.cumsum(gaps[..., :center][..., ::-1], axis=-1)[..., ::-1]
        middle = raw[..., :1] + z[center].astype(raw.dtype)
        return jnp.concatenate([middle - below, middle, middle + above], axis=-1)

    def _positions(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each level [Q]: the knot to start from, its gap, and the share of the gap to add."""
        q = np.array(self.levels)
        anchor = np.clip(np.searchsorted(q, asked, side="right") - 1, 0, self.size - 1)
        gap = np.minimum(anchor, self.size - 2)

        def share(at: np.ndarray, knots: np.ndarray) -> np.ndarray:
            return (at - knots[anchor]) / (knots[gap + 1] - knots[gap])

        inside = (asked >= q[0]) & (asked <= q[-1])
        return anchor, gap, np.where(inside, share(asked, q), share(ndtri(asked), ndtri(q)))

    def _mean_weights(self) -> np.ndarray:
        """Weights [Q] of the quantiles in the mean; the integral of z over a tail is ∓ density."""
        if self.size == 1:
            return np.ones(1)
        q, z = np.array(self.levels), ndtri(self.levels)
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
    """The position of ``at`` between ``knots[low]`` and the next knot, 0 to 1 inside."""
    return (at - knots[low]) / (knots[low + 1] - knots[low])
