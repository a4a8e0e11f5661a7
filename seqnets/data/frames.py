"""Series from a pandas frame in the long layout, read like the same CSV file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from seqnets.data.cells import LARGEST, Cells, numbers, shown
from seqnets.data.errors import DataError
from seqnets.data.series import Series, on_grid
from seqnets.data.times import parse_times
from seqnets.data.written import LONG, Times, check_identifiers, check_long_names, long_series
from seqnets.typing import Float

__all__ = ["series_from_frame"]

WHERE = "frame"
"""Beginning of the error messages."""


def series_from_frame(frame: pd.DataFrame, *, shortest: int = 2) -> list[Series]:
    """Read series from a pandas frame in the long layout.

    The result equals that of `read_series` for a CSV file with the same rows: series in order of
    appearance, rows sorted by time, and missing values for times left out.

    Args:
      frame: frame with the columns or index levels ``unique_id`` (names), ``ds`` (dates, converted
        to UTC if they have a time zone; integers; or texts as in a CSV file), and ``y`` (numbers
        within ±1e150, or NaN if missing), in any order; others are ignored.
      shortest: minimum number of values of a series.

    Returns:
      At least one series, each with at least one value that is not missing.

    Raises:
      TypeError: if ``frame`` is not a pandas frame.
      DataError: if a column is missing or occurs twice, there are no rows, a cell is not valid for
        its column, a time occurs twice in a series, the times do not lie on a regular grid, or a
        series has fewer than ``shortest`` values or only missing ones. Rows are counted from 0, as
        in ``frame.iloc``.

    Example:
      >>> import pandas as pd
      >>> days = pd.date_range("2024-01-01", periods=3)
      >>> (one,) = series_from_frame(pd.DataFrame({"unique_id": "a", "ds": days, "y": [1, 2, 3]}))
      >>> one.id, one.frequency, one.values.tolist()
      ('a', 'D', [1.0, 2.0, 3.0])
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame: expected a pandas DataFrame, got {type(frame).__name__}")
    ids, ds, y = _columns(frame)
    if not len(frame):
        raise DataError(f"{WHERE}: expected rows of data, got none")
    names = _cells(_names(ids), "unique_id")
    check_identifiers(names)
    written = long_series(names.texts, _times(ds), _values(y), np.arange(len(frame)), "rows")
    return [on_grid(WHERE, one, shortest) for one in written]


def _columns(frame: pd.DataFrame) -> list[pd.Series]:
    """The columns of the long layout, from columns or index levels."""
    levels = [name for name in frame.index.names if name is not None]
    names = [str(name) for name in (*levels, *frame.columns)]
    check_long_names(WHERE, names)
    for i, name in enumerate(names):
        if name in LONG and name in names[:i]:
            raise DataError(f"{WHERE}: two columns are named {shown(name)}")
    return [
        frame[name]
        if name in frame.columns
        else pd.Series(frame.index.get_level_values(name), name=name)
        for name in LONG
    ]


def _cells(texts: Sequence[str], name: str) -> Cells:
    return Cells(WHERE, texts, lambda i: f"row {i}, column {shown(name)}")


def _texts(column: pd.Series) -> list[str]:
    """The cells as a CSV file would hold them."""
    missing = column.isna()
    return ["" if gap else str(cell).strip() for cell, gap in zip(column, missing, strict=True)]


def _names(column: pd.Series) -> list[str]:
    """The identifiers as texts, converted once each."""
    codes, found = pd.factorize(column)
    texts = [*(str(name).strip() for name in found), ""]  # code -1, the last, means missing
    return [texts[code] for code in codes.tolist()]


def _times(column: pd.Series) -> Times:
    if pd.api.types.is_datetime64_any_dtype(column.dtype) and not column.isna().any():
        try:
            dates = pd.DatetimeIndex(column)
            utc = dates if dates.tz is None else dates.tz_convert("UTC").tz_localize(None)
            return utc.as_unit("ns").rename(None)
        except (ValueError, OverflowError):  # out of range for nanoseconds; the message is below
            pass
    return parse_times(_cells(_texts(column), "ds"))


def _values(column: pd.Series) -> Float[np.ndarray, " n"]:
    kinds = pd.api.types
    if kinds.is_integer_dtype(column.dtype) or kinds.is_float_dtype(column.dtype):
        values = column.to_numpy(np.float64, na_value=np.nan)
        if not (np.abs(values) > LARGEST).any():
            return values
    return numbers(_cells(_texts(column), "y"))
