"""The training step, compiled once for each batch shape of a source."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from seqnets.data.source import Share, Source
from seqnets.training.layout import Layout, Memory, Program
from seqnets.training.state import TrainState
from seqnets.training.step import TrainStep
from seqnets.typing import PyTree

__all__ = ["Programs"]


class Programs:
    """The compiled programs of a run; one is compiled when its batch shape first occurs.

    Args:
      step: the training step.
      source: source that declares the batch shapes.
      layout: the devices.
    """

    def __init__(self, step: TrainStep, source: Source, layout: Layout) -> None:
        self._step, self._layout = step, layout
        self._declared = [_signature(shape, layout.share) for shape in source.shapes]
        self._known: dict[tuple, Program] = {}

    def __len__(self) -> int:
        """Number of programs compiled so far."""
        return len(self._known)

    def get(self, host: PyTree) -> Program | None:
        """The program for a batch as the source returned it; None if not yet compiled.

        Raises:
          ValueError: if the source did not declare the batch's shape.
        """
        shape = _signature(host)
        if shape not in self._known and shape not in self._declared:
            raise ValueError(
                f"source: expected batches of one of its shapes {self._declared}, got {shape}"
            )
        return self._known.get(shape)

    def compile(self, host: PyTree, state: TrainState, batch: PyTree) -> Program:
        """Compile the step for a state and a batch on the devices; ``host`` as in `get`."""
        program = self._layout.compile(self._step, state, batch)
        self._known[_signature(host)] = program
        return program

    @property
    def memory(self) -> Memory | None:
        """Memory of the program that needs the most; None if there is none or it is unknown."""
        known = [program.memory for program in self._known.values() if program.memory]
        return max(known, key=lambda memory: memory.step or 0, default=None)


def _signature(batch: PyTree, share: Share | None = None) -> tuple:
    """Structure, shapes, and dtypes of a batch, or of a share of a declared batch."""

    def leaf(x: Any) -> tuple:
        rows, *rest = x.shape
        if share is not None:
            own = share.rows(rows)
            rows = own.stop - own.start
        return (rows, *rest), np.dtype(x.dtype).name

    return jax.tree.structure(batch), tuple(map(leaf, jax.tree.leaves(batch)))
