"""Evaluation: sums over held-out data, which add over devices and processes, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from seqnets.data.source import Share
from seqnets.reduction import Weighted
from seqnets.training.layout import ONE, Layout
from seqnets.training.objective import LossFn
from seqnets.training.state import Weights
from seqnets.typing import PyTree

__all__ = ["Evaluation", "LossEvaluation", "means", "sums_to_host"]


class Evaluation(Protocol):
    """What is measured from time to time, and which figure decides what is best."""

    @property
    def metric(self) -> str | None:
        """Name of the figure by which checkpoints are ranked; None if none is the best."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is better."""
        ...

    def sums(self, weights: Weights) -> dict[str, Any]:
        """Additive float64 host arrays of any shape, over this process's share of the data.

        Args:
          weights: arrays of this process's devices.
        """
        ...

    def figures(self, sums: dict[str, Any]) -> dict[str, float]:
        """What is recorded of the sums of all processes."""
        ...


class LossEvaluation:
    """The sums of a loss function over the same batches each time.

    Each device keeps sums of its own, so that any number of batches may be in flight.
    """

    def __init__(
        self,
        loss_fn: LossFn,
        batches: Callable[[Share], Iterable[PyTree]],
        *,
        rows: int,
        layout: Layout = ONE,
        carry: Callable[[PyTree, int], PyTree] | None = None,
        metric: str = "loss",
        higher_is_better: bool = False,
        figures: Callable[[dict[str, Any]], dict[str, float]] | None = None,
    ) -> None:
        """Prepare an evaluation.

        Args:
          loss_fn: see `LossFn`; it is given no keys.
          batches: the rows of a share of every batch, ``share.rows(rows)`` of them, host arrays;
            rows that do not exist have weight 0.
          rows: rows of a whole batch B.
          layout: where a run is computed.
          carry: ``(params, rows) -> carry`` before the first batch; None if there is none.
          metric: figure by which checkpoints are ranked.
          higher_is_better: whether a larger metric is better.
          figures: what is made of the sums; None for `means`.
        """
        own = layout.share.rows(rows)
        self.metric, self.higher_is_better = metric, higher_is_better
        self.figures: Callable[[dict[str, Any]], dict[str, float]] = figures or means
        self._batches = lambda: batches(layout.share)
        self._layout = layout.apart(rows)
        self._step = self._layout.evaluation_step(loss_fn)
        number = own.stop - own.start
        self._carry = None if carry is None else jax.jit(lambda params: carry(params, number))

    def sums(self, weights: Weights) -> dict[str, Weighted]:
        """The sums of the loss function over this process's rows of all batches."""
        carry = () if self._carry is None else self._layout.split(self._carry(weights.params))
        parts = []
        for batch in self._batches():
            carry, part = self._step(*weights, carry, self._layout.split(batch))
            parts.append(part)
        return sums_to_host(parts)


def means(sums: Mapping[str, Weighted]) -> dict[str, float]:
    """The mean of each; 0 where the weight is 0."""
    return {
        name: float(part.total) / float(part.weight) if part.weight else 0.0
        for name, part in sums.items()
    }


def sums_to_host(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the sums of many evaluation steps, over steps and devices, in double precision.

    Args:
      parts: of each step, sums by name whose leading axis is that of the devices.
    """
    totals: dict[str, Any] = {}
    for part in jax.device_get(list(parts)):
        for name, value in part.items():
            pair = jax.tree.map(lambda x: np.sum(x, 0, dtype=np.float64), value)
            totals[name] = jax.tree.map(np.add, totals[name], pair) if name in totals else pair
    return totals
