"""Cells whose recurrence is linear in the carry, so that their steps combine associatively."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Generic, TypeVar

from seqnets.cells.prepared import PreparedCell
from seqnets.typing import Array, Float, PyTree, Shaped

__all__ = ["LinearCell"]

ParamsT = TypeVar("ParamsT")
CarryT = TypeVar("CarryT")
ElementT = TypeVar("ElementT")


@dataclasses.dataclass(frozen=True)
class LinearCell(PreparedCell[ParamsT, CarryT], Generic[ParamsT, CarryT, ElementT]):
    """Base class of cells defined by elements that act on the carry and can be combined.

    An element represents what a step does to the carry and depends only on the input: for
    ``h_t = a_t ∘ h_{t-1} + b_t`` it is the pair (a_t, b_t). These laws must hold:

        combine(combine(a, b), c) = combine(a, combine(b, c))
        combine(identity, a) = a = combine(a, identity)
        act(combine(a, b), h) = act(b, act(a, h))           act(identity, h) = h

    They allow all carries of a row to be computed in parallel over time; at present the engine
    still runs a loop. The step follows from the elements:

        h_t = act(element_t, h_{t-1}),   y_t = read(params, h_t, x_t)

    Args:
      features: size of the output.
      initialization: how to draw the parameters; see `seqnets.initializers.Initialization`.
    """

    @abc.abstractmethod
    def elements(self, params: ParamsT, xs: Float[Array, "*B D"]) -> ElementT:
        """Compute the elements, which do not depend on the carry.

        Args:
          params: parameters of the cell.
          xs: inputs of one time step, [B, D], or of all time steps, [T, B, D].

        Returns:
          A pytree with leaves [B, ...] or [T, B, ...].
        """

    @abc.abstractmethod
    def combine(self, first: ElementT, then: ElementT) -> ElementT:
        """Combine two elements; the operation must be associative.

        Args:
          first: the element of the earlier time steps.
          then: the element of the later time steps.

        Returns:
          The element that applies ``first`` and then ``then``.
        """

    @abc.abstractmethod
    def identity(self, like: ElementT) -> ElementT:
        """Return the element that does not change the carry.

        Args:
          like: elements with the shapes and dtypes of the result.
        """

    @abc.abstractmethod
    def act(self, element: ElementT, carry: CarryT) -> CarryT:
        """Apply an element to a carry.

        Args:
          element: element of one time step, or a combination of elements.
          carry: carry before these time steps.

        Returns:
          The carry after them.
        """

    def read(self, params: ParamsT, carry: CarryT, x: Float[Array, "B D"]) -> Shaped[Array, "B H"]:
        """Compute the output of one time step: the part h of the carry unless overridden.

        Args:
          params: parameters of the cell.
          carry: carry after the time step.
          x: input of the time step, [B, D].

        Returns:
          [B, H].
        """
        return carry.h  # type: ignore[attr-defined]

    def prepare(self, params: ParamsT, xs: Float[Array, "*B D"]) -> tuple[ElementT, PyTree]:
        """The elements, and the inputs for `read`."""
        return self.elements(params, xs), xs

    def advance(
        self, params: ParamsT, carry: CarryT, prepared: Any
    ) -> tuple[CarryT, Shaped[Array, "B H"]]:
        """Apply the element and read the output."""
        element, x = prepared
        carry = self.act(element, carry)
        return carry, self.read(params, carry, x)
