"""Evaluation: sums over held-out data, added over devices and processes, and their metrics."""

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
    """What the loop measures every few steps, and the metric that ranks checkpoints."""

    @property
    def metric(self) -> str | None:
        """Name of the metric that ranks checkpoints; None if they are not ranked."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is better."""
        ...

    def sums(self, weights: Weights) -> dict[str, Any]:
        """Compute additive sums over this process's share of the data.

        Args:
          weights: parameters and variables, on this process's devices.

        Returns:
          Pytrees of float64 host arrays of any shape, by name.
        """
        ...

    def figures(self, sums: dict[str, Any]) -> dict[str, float]:
        """Compute the metrics to record.

        Args:
          sums: sums over all processes.

        Returns:
          Metrics by name.
        """
        ...


class LossEvaluation:
    """Evaluate a loss function over the same batches each time.

    Each device keeps its own sums, so that any number of batches may be in flight.
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
          loss_fn: see `LossFn`; it receives no keys.
          batches: ``share -> batches``, host arrays with the rows ``share.rows(rows)`` of every
            batch; rows past the end of the data have weight 0.
          rows: rows B of a whole batch.
          layout: devices of the run.
          carry: ``(params, rows) -> carry``, the carry before the first batch; None without one.
          metric: name of the metric that ranks checkpoints.
          higher_is_better: whether a larger metric is better.
          figures: ``sums -> metrics``; None for `means`.
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
        """Sum the loss function over this process's rows of all batches.

        Args:
          weights: parameters and variables, on this process's devices.

        Returns:
          `Weighted` float64 host arrays by name, the loss as ``"loss"`` and the metrics.
        """
        carry = () if self._carry is None else self._layout.split(self._carry(weights.params))
        parts = []
        for batch in self._batches():
            carry, part = self._step(*weights, carry, self._layout.split(batch))
            parts.append(part)
        return sums_to_host(parts)


def means(sums: Mapping[str, Weighted]) -> dict[str, float]:
    """Divide each total by its weight.

    Args:
      sums: totals and weights, scalars, by name.

    Returns:
      ``total / weight`` by name; 0 where the weight is 0.
    """
    return {
        name: float(part.total) / float(part.weight) if part.weight else 0.0
        for name, part in sums.items()
    }


def sums_to_host(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the sums of many evaluation steps over steps and devices, in double precision.

    Args:
      parts: for each step, pytrees of sums by name; every leaf [N, ...] has a leading device axis.

    Returns:
      The same pytrees of float64 host arrays, without the device axis.
    """
    totals: dict[str, Any] = {}
    for part in jax.device_get(list(parts)):
        for name, value in part.items():
            pair = jax.tree.map(lambda x: np.sum(x, 0, dtype=np.float64), value)
            totals[name] = jax.tree.map(np.add, totals[name], pair) if name in totals else pair
    return totals
