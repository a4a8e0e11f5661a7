"""One recurrent layer of a stack, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from seqnets.checks import check_cell
from seqnets.recurrence import Regularization
from seqnets.typing import Cell

__all__ = ["Layer", "as_layers"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A cell, and how its recurrence is disturbed in training.

    Attributes:
      cell: any `Cell`.
      regularization: see `seqnets.recurrence.Regularization`.
    """

    cell: Cell
    regularization: Regularization = Regularization()


def as_layers(layers: tuple[Layer | Cell, ...]) -> tuple[Layer, ...]:
    """Layers, where a bare cell stands for a layer without regularization.

    Raises:
      TypeError: if one is neither a cell nor a layer.
    """
    if not isinstance(layers, Sequence):
        raise TypeError(f"layers: expected a tuple of cells, got {type(layers).__name__}")
    whole = tuple(one if isinstance(one, Layer) else Layer(one) for one in layers)
    for number, layer in enumerate(whole):
        check_cell(f"layers[{number}]", layer.cell)
    return whole
