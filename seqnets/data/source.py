"""Sources of batches, and which rows of them are asked for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from seqnets.typing import PyTree

__all__ = ["WHOLE", "Share", "Source"]


class Share(NamedTuple):
    index: int = 0
    count: int = 1

    def rows(self, number: int) -> slice:
        each = -(-number // self.count)
        return slice(self.index * each, (self.index + 1) * each)


WHOLE = Share()


class Source(Protocol):
    @property
    def shapes(self) -> tuple[PyTree, ...]: ...

    def batch(self, k: int, share: Share = WHOLE) -> PyTree: ...
