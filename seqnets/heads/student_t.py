"""Student's t distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seqnets import losses
from seqnets.activations import softplus
from seqnets.heads.raw import check_target, positive_scale, widen_raw
from seqnets.heads.student_t_quantiles import student_t_quantiles
from seqnets.typing import Array, Float, Key

__all__ = ["StudentTHead"]


@dataclass(frozen=True)
class StudentTHead:
    """Student's t distribution, which has heavier tails than the normal distribution.

        df = 2 + softplus(raw_1),   loc = raw_2,   scale = softplus(raw_3 + log(e - 1)) + floor

    The variance is finite because df > 2. The floor is `seqnets.heads.SCALE_FLOOR`.
    """

    @property
    def size(self) -> int:
        """Raw numbers per target value: 3."""
        return 3

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Negative log likelihood of the targets, in nats.

        Raises:
          ValueError: if raw is not [..., S] for targets [...].
        """
        check_target(raw, target, self.size)
        df, loc, scale = self._parameters(raw)
        return losses.student_t(jnp.asarray(target, loc.dtype), df, loc, scale)

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """``loc + scale · t`` with t from `student_t_quantiles`.

        Raises:
          ValueError: if raw is not [..., S] or the levels are not increasing in (0, 1).
        """
        df, loc, scale = self._parameters(raw)
        return loc[..., None] + scale[..., None] * student_t_quantiles(df, levels)

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """The mean, ``loc``.

        Raises:
          ValueError: if raw is not [..., S].
        """
        return self._parameters(raw)[1]

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """One draw per target value, ``loc + scale · t``.

        Raises:
          ValueError: if raw is not [..., S].
        """
        df, loc, scale = self._parameters(raw)
        return loc + scale * jax.random.t(key, df, loc.shape, loc.dtype)

    def _parameters(self, raw: Array) -> tuple[Array, Array, Array]:
        raw = widen_raw(raw, self.size)
        return 2 + softplus(raw[..., 0]), raw[..., 1], positive_scale(raw[..., 2])
