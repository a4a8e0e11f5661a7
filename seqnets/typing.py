"""The letters, array aliases, and protocols used in all other modules.

Letters in shapes:

    B batch   T time   S source time   U target time   D input features   H hidden
    G gates   L layers   V vocabulary   K classes or components   Q quantiles
    W window   N devices   P sample paths

Public arrays are batch-major, ``[B, T, D]``.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

__all__ = [
    "Activation",
    "Array",
    "Bool",
    "Cell",
    "Float",
    "Int",
    "Key",
    "Keys",
    "Params",
    "PyTree",
    "Shaped",
]

PyTree = Any
Params = Any
Key = PRNGKeyArray | jax.Array
Keys = PRNGKeyArray | jax.Array

CarryT = TypeVar("CarryT")
ParamsT = TypeVar("ParamsT")


class Activation(Protocol):
    """An element-wise function that keeps the shape and dtype of its array."""

    def __call__(self, x: Float[Array, "*S"], /) -> Float[Array, "*S"]:
        """Apply the function to every element."""
        ...


class Cell(Protocol[ParamsT, CarryT]):
    """The complete contract of a recurrent cell: a small immutable object of pure functions.

    A cell defines a single step. Time, masks, resets, direction, and rows of unequal length are
    handled by `seqnets.recurrence.unroll`. ``params`` and ``carry`` are pytrees of arrays; every
    leaf of ``carry`` has the batch as its first axis.
    """

    @property
    def features(self) -> int:
        """Size of the last axis of the output ``y``."""
        ...

    def init(self, key: Key, in_features: int) -> ParamsT:
        """Draw the parameters.

        Args:
          key: random key.
          in_features: size D of the last axis of the inputs.

        Returns:
          A pytree of float32 arrays.
        """
        ...

    def initial_carry(self, params: ParamsT, batch: int, dtype: Any) -> CarryT:
        """The carry before the first step.

        Args:
          params: parameters, from `init`.
          batch: number of rows B.
          dtype: dtype of the floating leaves.

        Returns:
          A pytree of arrays [B, ...].
        """
        ...

    def step(
        self, params: ParamsT, carry: CarryT, x: Float[Array, "B *D"]
    ) -> tuple[CarryT, Float[Array, "B *H"]]:
        """Compute one step.

        Args:
          params: parameters, from `init`.
          carry: carry before the step, leaves [B, ...].
          x: inputs, [B, D].

        Returns:
          ``(carry, y)``: the carry after the step, with the same structure and shapes, and the
          output [B, features].
        """
        ...
