"""Checks of ragged sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from seqnets.typing import Shaped

__all__ = ["checked_sequences"]


def checked_sequences(sequences: Sequence[ArrayLike]) -> list[Shaped[np.ndarray, "T *D"]]:
    """Convert sequences to arrays and check that only their first axes differ.

    Raises:
      ValueError: if there is none, one is a scalar, or one differs in shape from the first.
      TypeError: if they are not numbers or bools, or differ in dtype.
    """
    arrays = [np.asarray(one) for one in sequences]
    if not arrays:
        raise ValueError("sequences: expected at least one, got none")
    first = arrays[0]
    for i, one in enumerate(arrays):
        if one.ndim == 0:
            raise ValueError(f"sequences[{i}]: expected an array [T, ...], got a scalar")
        if one.dtype.kind in "OSUMm" or one.dtype != first.dtype:
            raise TypeError(
                f"sequences[{i}]: expected numbers or bools of one dtype, got {one.dtype} "
                f"after {first.dtype}"
            )
        if one.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"sequences[{i}]: expected axes {first.shape[1:]} after the first, as in "
                f"sequences[0], got {one.shape[1:]}"
            )
    return arrays
