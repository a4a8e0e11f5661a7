"""The contract of output distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from seqnets.typing import Array, Float, Key

__all__ = ["Head"]


class Head(Protocol):
    """A family of distributions, and a map from ``size`` raw numbers to its members.

    A head is an immutable, hashable value. All its methods can be traced by JAX and compute in
    float32, or in the dtype of ``raw`` if that is wider. Losses require finite targets: replace a
    missing target by any number and give it weight 0.
    """

    @property
    def size(self) -> int:
        """Raw numbers per target value, S."""
        ...

    def loss(self, raw: Float[Array, "*N S"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """The loss of each target value, unreduced.

        Args:
          raw: [..., S].
          target: [...], finite.

        Returns:
          [...].

        Raises:
          ValueError: if raw is not [..., S] for targets [...].
        """
        ...

    def quantiles(self, raw: Float[Array, "*N S"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
        """Quantiles of the distribution.

        Args:
          raw: [..., S].
          levels: [Q] static numbers in (0, 1), increasing.

        Returns:
          [..., Q], non-decreasing along the last axis.

        Raises:
          ValueError: if raw is not [..., S] or the levels are not increasing in (0, 1).
        """
        ...

    def mean(self, raw: Float[Array, "*N S"]) -> Float[Array, "*N"]:
        """The mean of the distribution.

        Args:
          raw: [..., S].

        Returns:
          [...].

        Raises:
          ValueError: if raw is not [..., S].
        """
        ...

    def sample(self, raw: Float[Array, "*N S"], key: Key) -> Float[Array, "*N"]:
        """One independent draw per target value.

        Args:
          raw: [..., S].
          key: one random key.

        Returns:
          [...].

        Raises:
          ValueError: if raw is not [..., S].
        """
        ...
