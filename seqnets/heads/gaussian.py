"""The normal distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from scipy.special import ndtri

from seqnets import losses
from seqnets.checks import check_levels
from seqnets.heads.raw import check_target, over_levels, positive_scale, widen_raw
from seqnets.typing import Array, Float, Key

__all__ = ["GaussianHead"]


@dataclass(frozen=True)
class GaussianHead:
    """Normal distribution, trained by its negative log likelihood.

        loc = raw_1,   scale = softplus(raw_2 + log(e - 1)) + floor

    The floor is `seqnets.heads.SCALE_FLOOR`, so raw zeros give a scale of about 1.
    """

    @property
    def size(self) -> int:
        """Raw numbers per target value: 2."""
        return 2

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Negative log likelihood of the targets, in nats.

        Raises:
          ValueError: if raw is not [..., S] for targets [...].
        """
        check_target(raw, target, self.size)
        loc, scale = self._parameters(raw)
        return losses.gaussian(jnp.asarray(target, loc.dtype), loc, scale)

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """``loc + scale · z``, z the quantiles of the standard normal distribution.

        Raises:
          ValueError: if raw is not [..., S] or the levels are not increasing in (0, 1).
        """
        z = ndtri(check_levels("levels", levels))
        loc, scale = self._parameters(raw)
        return loc[..., None] + scale[..., None] * over_levels(z, loc)

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """The mean, ``loc``.

        Raises:
          ValueError: if raw is not [..., S].
        """
        return self._parameters(raw)[0]

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """One draw per target value, ``loc + scale · normal``.

        Raises:
          ValueError: if raw is not [..., S].
        """
        loc, scale = self._parameters(raw)
        return loc + scale * jax.random.normal(key, loc.shape, loc.dtype)

    def _parameters(self, raw: Array) -> tuple[Array, Array]:
        raw = widen_raw(raw, self.size)
        return raw[..., 0], positive_scale(raw[..., 1])
