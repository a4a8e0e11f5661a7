"""Cells whose recurrence is linear in the carry: their steps combine associatively."""

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
    """Base of the cells given by elements that act on the carry and combine.

    An element is what a step does to the carry, known from its input alone: for
    ``h_t = a_t ∘ h_{t-1} + b_t`` the pair (a_t, b_t). These laws must hold:

        combine(combine(a, b), c) = combine(a, combine(b, c))
        combine(identity, a) = a = combine(a, identity)
        act(combine(a, b), h) = act(b, act(a, h))           act(identity, h) = h

    So all carries of a row can be computed in parallel over time; for now the loop evaluates them.
    The step is derived:

        h_t = act(element_t, h_{t-1}),   y_t = read(params, h_t, x_t)
    """

    @abc.abstractmethod
    def elements(self, params: ParamsT, xs: Float[Array, "*B D"]) -> ElementT:
        """The elements of inputs, of one time step ``[B, D]`` or of all ``[T, B, D]``."""

    @abc.abstractmethod
    def combine(self, first: ElementT, then: ElementT) -> ElementT:
        """The element that does what ``first`` does, and after it ``then``."""

    @abc.abstractmethod
    def identity(self, like: ElementT) -> ElementT:
        """The element that does nothing, with shapes and dtypes of another."""

    @abc.abstractmethod
    def act(self, element: ElementT, carry: CarryT) -> CarryT:
        """The carry after what an element does: both of one time step, without a time axis."""

    def read(self, params: ParamsT, carry: CarryT, x: Float[Array, "B D"]) -> Shaped[Array, "B H"]:
        """The output after one step; the carry's part h unless the cell says otherwise."""
        return carry.h  # type: ignore[attr-defined]

    def prepare(self, params: ParamsT, xs: Float[Array, "*B D"]) -> tuple[ElementT, PyTree]:
        """Elements, and the inputs for `read`."""
        return self.elements(params, xs), xs

    def advance(
        self, params: ParamsT, carry: CarryT, prepared: Any
    ) -> tuple[CarryT, Shaped[Array, "B H"]]:
        """Let the element act, and read the output."""
        element, x = prepared
        carry = self.act(element, carry)
        return carry, self.read(params, carry, x)
