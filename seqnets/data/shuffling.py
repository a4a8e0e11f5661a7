"""Orders that depend on a seed alone."""

from __future__ import annotations

import functools

import numpy as np

from seqnets.typing import Int

__all__ = ["shuffled"]


@functools.lru_cache(maxsize=16)
def shuffled(number: int, *seed: int) -> Int[np.ndarray, " n"]:
    """Return 0 to ``number - 1`` in random order, a pure function of the arguments; read-only.

    The last orders are kept, since all batches of an epoch ask for the same ones.

    Args:
      number: n ≥ 0.
      seed: one or more integers ≥ 0. NumPy draws the same from [s, e] and from [s, e, 0], so
        orders that must be independent of each other differ in more than zeros at the end.
    """
    order = np.random.default_rng(list(seed)).permutation(number)
    order.flags.writeable = False
    return order
