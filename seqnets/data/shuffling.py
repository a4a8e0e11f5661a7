"""Random orders that depend only on a seed."""

from __future__ import annotations

import functools

import numpy as np

from seqnets.typing import Int

__all__ = ["shuffled"]


@functools.lru_cache(maxsize=16)
def shuffled(number: int, *seed: int) -> Int[np.ndarray, " n"]:
    """Return a random permutation of 0 to ``number - 1``, a pure function of the arguments.

    Recent orders are cached, since all batches of an epoch use the same ones.

    Args:
      number: n ≥ 0.
      seed: one or more integers ≥ 0. NumPy draws the same numbers from [s, e] and [s, e, 0], so
        the seeds of independent orders must differ in more than zeros at the end.

    Returns:
      [n] read-only integers.
    """
    order = np.random.default_rng(list(seed)).permutation(number)
    order.flags.writeable = False
    return order
