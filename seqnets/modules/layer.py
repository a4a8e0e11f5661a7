"""One recurrent layer of a stack, as a value."""

from __future__ import annotations

import dataclasses

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
    for number, one in enumerate(layers):
        if not isinstance(one, Layer) and not hasattr(one, "initial_carry"):
            raise TypeError(
                f"layers[{number}]: expected a cell or a Layer, got {type(one).__name__}"
            )
    return tuple(one if isinstance(one, Layer) else Layer(one) for one in layers)
