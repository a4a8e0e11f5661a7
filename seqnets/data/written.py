"""Series as written in a file or frame, before they are placed on a grid."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from seqnets.data.cells import Cells, shown
from seqnets.data.errors import DataError
from seqnets.typing import Float, Int

__all__ = ["LONG", "Times", "Written", "check_identifiers", "check_long_names", "long_series"]

LONG = ("unique_id", "ds", "y")
"""Columns of the long layout."""

Times = pd.DatetimeIndex | Int[np.ndarray, " T"]


@dataclass(frozen=True)
class Written:
    """A series as written: values in the given order, with times if there are any.

    Attributes:
      id: name of the series.
      values: [T] float64, NaN where missing.
      times: [T] dates or integers in the given order, or None.
      places: [T] number of the line or row of each value.
      unit: unit of ``places``, ``"lines"`` or ``"rows"``.
    """

    id: str
    values: Float[np.ndarray, " T"]
    times: Times | None
    places: Int[np.ndarray, " T"]
    unit: str = "lines"


def check_long_names(where: str, names: Sequence[str]) -> None:
    """Check that ``names`` has the columns of the long layout; ``where`` begins the message.

    Raises:
      DataError: if a column is missing; the message names it and the most similar one.
    """
    for needed in LONG:
        if needed not in names:
            near = difflib.get_close_matches(needed, names, 1)
            hint = f"; did you mean {shown(near[0])}?" if near else ""
            listed = ", ".join(map(shown, names[:10]))
            raise DataError(
                f"{where}: expected the columns unique_id, ds, y, got {listed} "
                f"without {needed!r}{hint}"
            )


def check_identifiers(cells: Cells) -> None:
    """Check that no identifier is empty.

    Raises:
      DataError: at the first empty one.
    """
    if "" in cells.texts:
        raise cells.wrong(list(cells.texts).index(""), "an identifier")


def long_series(
    ids: Sequence[str],
    times: Times,
    values: Float[np.ndarray, " n"],
    places: Int[np.ndarray, " n"],
    unit: str = "lines",
) -> list[Written]:
    """Group the rows of the long layout by identifier, in order of first appearance."""
    given: Any = np.array(ids, object)
    codes, names = pd.factorize(given)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return [
        Written(str(name), values[own], times[own], places[own], unit)
        for name, own in zip(names, members, strict=True)
    ]
