"""Series from pandas frames in long form, as from a CSV file of the same content."""

from __future__ import annotations

import numpy as np
import pandas as pd

from seqnets.checks import did_you_mean
from seqnets.data.cells import Cells, numbers
from seqnets.data.errors import DataError
from seqnets.data.forms import LONG, Times, by_series
from seqnets.data.series import Series, on_grid
from seqnets.data.times import parse_times
from seqnets.typing import Float

__all__ = ["series_from_frame"]

FRAME = "frame"


def series_from_frame(frame: pd.DataFrame, *, shortest: int = 2) -> list[Series]:
    """The series of a frame with the columns or index levels ``unique_id``, ``ds``, and ``y``.

    Rows may come in any order; other columns are ignored. Values are those that `read_series` gives
    for the same data as CSV.

    Args:
      frame: ``ds`` holds dates (with a time zone they become UTC), integers, or text that
        `read_series` takes; ``y`` numbers, NaN where missing.
      shortest: fewest values of a series.

    Raises:
      TypeError: if it is not a frame.
      DataError: if a column is missing, there are no rows, a cell is not what belongs there, or
        the rows are no series on regular grids; see `read_series`.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame: expected a pandas DataFrame, got {type(frame).__name__}")
    levels = [name for name in frame.index.names if name in LONG and name not in frame.columns]
    frame = frame.reset_index(level=levels) if levels else frame
    for name in LONG:
        if name not in frame.columns:
            hint = did_you_mean(name, map(str, frame.columns))
            raise DataError(
                f"{FRAME}: expected the columns unique_id, ds, y, without {name!r}; {hint}"
            )
    if frame.empty:
        raise DataError(f"{FRAME}: expected rows of data, got none")
    ids, ds, y = (frame[name] for name in LONG)
    missing = np.flatnonzero(ids.isna() | ids.astype(str).eq(""))
    if missing.size:
        raise DataError(f"{FRAME}: row {missing[0]}, column 'unique_id': expected an identifier")
    lines = np.arange(len(frame), dtype=np.int64)
    found = by_series(ids.astype(str).tolist(), _times(ds), _values(y), lines)
    return [on_grid(FRAME, written, shortest, "rows") for written in found]


def _times(ds: pd.Series) -> Times:
    """The times of rows, as a file would have them."""
    if ds.isna().any():
        row = int(np.flatnonzero(ds.isna())[0])
        raise DataError(f"{FRAME}: row {row}, column 'ds': expected a time, got a missing one")
    if isinstance(ds.dtype, pd.PeriodDtype):
        ds = ds.dt.to_timestamp()
    if isinstance(ds.dtype, pd.DatetimeTZDtype):
        ds = ds.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(ds.dtype):
        try:
            return pd.DatetimeIndex(ds).as_unit("ns")
        except (ValueError, OverflowError) as error:
            raise DataError(f"{FRAME}: column 'ds': {error}") from error
    if pd.api.types.is_integer_dtype(ds.dtype):
        return ds.to_numpy(np.int64)
    return parse_times(_cells(ds, "ds"))


def _values(y: pd.Series) -> Float[np.ndarray, " n"]:
    """The values of rows, NaN where missing."""
    if pd.api.types.is_numeric_dtype(y.dtype) and not pd.api.types.is_bool_dtype(y.dtype):
        values = y.to_numpy(np.float64, na_value=np.nan)
        infinite = np.flatnonzero(np.isinf(values))
        if infinite.size:
            raise _cells(y, "y").wrong(int(infinite[0]), "a finite number")
        return values
    return numbers(_cells(y, "y"))


def _cells(column: pd.Series, name: str) -> Cells:
    texts = ["" if missing else str(x) for x, missing in zip(column, column.isna(), strict=True)]
    return Cells(FRAME, texts, lambda i: f"row {i}, column {name!r}")
