"""The description of one recurrent layer of a stack."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from seqnets.checks import check_cell
from seqnets.recurrence import Regularization
from seqnets.typing import Cell

__all__ = ["Layer", "as_layers"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A cell and the regularization of its recurrence.

    Attributes:
      cell: any `Cell`.
      regularization: see `seqnets.recurrence.Regularization`.
    """

    cell: Cell
    regularization: Regularization = Regularization()


def as_layers(layers: tuple[Layer | Cell, ...]) -> tuple[Layer, ...]:
    """Convert cells to layers without regularization; layers are kept.

    Raises:
      TypeError: if layers is not a sequence, or an element is neither a cell nor a layer.
    """
    if not isinstance(layers, Sequence):
        raise TypeError(f"layers: expected a tuple of cells, got {type(layers).__name__}")
    whole = tuple(one if isinstance(one, Layer) else Layer(one) for one in layers)
    for number, layer in enumerate(whole):
        check_cell(f"layers[{number}]", layer.cell)
    return whole
