"""The strategies to compute a recurrence, in the order in which ``"auto"`` tries them.

A strategy reports what it cannot run (`Strategy.why_not`) and when it is worthwhile
(`Strategy.pays`). To add a strategy, add an entry to `STRATEGIES` and its name to `NAMES`
(`execution.py`); no other code refers to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from seqnets.cells.gated import GatedCell
from seqnets.recurrence.contract import Steps
from seqnets.recurrence.cudnn import cudnn, why_not_cudnn
from seqnets.recurrence.fused import fused
from seqnets.recurrence.scan import scan
from seqnets.typing import Cell, PyTree

__all__ = ["STRATEGIES", "Strategy", "choose"]


class _Run(Protocol):
    """Runs a cell over time."""

    def __call__(
        self, cell: Any, params: Any, carry: Any, steps: Steps, *, reverse: bool
    ) -> tuple[PyTree, PyTree]:
        """Return ``(carry, ys)``, ys [B, T, ...] at the positions of their inputs."""
        ...


Objection = Callable[[Cell, PyTree, PyTree, Steps], str | None]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One way to run a cell over time.

    Attributes:
      name: its name in `seqnets.Execution`.
      run: the implementation.
      why_not: from cell, parameters, carry, and steps, the reason why it cannot run, or None.
      pays: from the same arguments, whether ``"auto"`` should select it if it can run.
    """

    name: str
    run: _Run
    why_not: Objection
    pays: Callable[[Cell, PyTree, PyTree, Steps], bool]


def _never(cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> bool:
    return False


def _always(cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> bool:
    return True


def _nothing(cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> str | None:
    return None


def _why_not_fused(cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> str | None:
    return None if isinstance(cell, GatedCell) else f"cell: expected a GatedCell, got {cell}"


STRATEGIES = (
    Strategy("fused", fused, _why_not_fused, _always),
    Strategy("scan", scan, _nothing, _always),
    Strategy("cudnn", cudnn, why_not_cudnn, _never),
)


def choose(name: str, cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> Strategy:
    """The strategy with a name, or for ``"auto"`` the first that can run and is worthwhile.

    Raises:
      TypeError: if the named strategy cannot run these arguments; the message says why.
    """
    for strategy in STRATEGIES:
        reason = strategy.why_not(cell, params, carry, steps)
        if strategy.name == name:
            if reason is not None:
                raise TypeError(f"strategy {name!r}: {reason}")
            return strategy
        if name == "auto" and reason is None and strategy.pays(cell, params, carry, steps):
            return strategy
    raise AssertionError(f"no strategy {name!r}")  # scan takes everything
