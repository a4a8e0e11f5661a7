"""Cells whose computations on the inputs alone can be done for all steps at once.

A recurrent step is `prepare` followed by `advance`, and only `advance` needs the carry. The engine
may therefore prepare all steps in one large product and run only `advance` in the loop.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Generic, TypeVar

import jax.numpy as jnp

from seqnets.cells.product import product
from seqnets.checks import check_range, check_rank
from seqnets.initializers import Initialization
from seqnets.typing import Array, Float, Key, PyTree

__all__ = ["PreparedCell", "project"]

ParamsT = TypeVar("ParamsT")
CarryT = TypeVar("CarryT")


@dataclasses.dataclass(frozen=True)
class PreparedCell(abc.ABC, Generic[ParamsT, CarryT]):
    """Base class of cells that are not gated: a step is ``advance(carry, prepare(x))``.

    Args:
      features: size of the output.
      initialization: how to draw the parameters; see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.
    """

    features: int
    initialization: Initialization = dataclasses.field(default=Initialization(), kw_only=True)
    """How to draw the parameters; fields that are None keep the default of the cell."""

    def __post_init__(self) -> None:
        """Reject sizes below 1."""
        check_range("features", self.features, 1)

    @property
    def input_letters(self) -> str:
        """Names of the axes of one input; images have more axes than the features."""
        return "D"

    @abc.abstractmethod
    def init(self, key: Key, in_features: int) -> ParamsT:
        """Draw float32 parameters for inputs ``[B, in_features]``."""

    @abc.abstractmethod
    def initial_carry(self, params: ParamsT, batch: int, dtype: Any) -> CarryT:
        """Carry before the first step, every leaf ``[batch, ...]`` of ``dtype``."""

    @abc.abstractmethod
    def prepare(self, params: ParamsT, xs: Float[Array, "*B D"]) -> PyTree:
        """The part of a step that needs only the inputs.

        Args:
          params: parameters, from `init`.
          xs: inputs of one step ``[B, ...]`` or of all steps ``[T, B, ...]``.

        Returns:
          A pytree of arrays with the same leading axes.
        """

    @abc.abstractmethod
    def advance(
        self, params: ParamsT, carry: CarryT, prepared: Any
    ) -> tuple[CarryT, Float[Array, "B *H"]]:
        """The rest of a step.

        Args:
          params: parameters, from `init`.
          carry: carry before the step, leaves [B, ...].
          prepared: result of `prepare` for this step.

        Returns:
          ``(carry, y)``: the carry after the step, and the output [B, ..., features].
        """

    def step(
        self, params: ParamsT, carry: CarryT, x: Float[Array, "B *D"]
    ) -> tuple[CarryT, Float[Array, "B *H"]]:
        """Compute one step.

        Args:
          params: parameters, from `init`.
          carry: carry before the step, leaves [B, ...].
          x: inputs, [B, ..., D].

        Returns:
          ``(carry, y)``: the carry after the step, and the output [B, ..., features].

        Raises:
          ValueError: if x does not have the number of axes, or the size, that the cell expects.
        """
        letters = f"B {self.input_letters}"
        check_rank("x", x, len(letters.split()), letters)
        return self.advance(params, carry, self.prepare(params, x))


def project(
    xs: Float[Array, "*B D"], w_x: Float[Array, "D G"], b: Float[Array, " G"] | None = None
) -> Float[Array, "*B G"]:
    """``x w_x + b`` over the last axis, for any leading axes.

    Raises:
      ValueError: if the size of the inputs does not match the weights.
    """
    expected, got = w_x.shape[0], xs.shape[-1]
    if got != expected:
        raise ValueError(f"xs: expected {expected} features, as the parameters have, got {got}")
    z = product(xs, w_x)
    return z if b is None else z + jnp.broadcast_to(b, z.shape)
