"""Series on a regular time grid, read from CSV files, and their future times."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from seqnets.checks import check_range, check_rank, check_shape
from seqnets.data.cells import shown
from seqnets.data.errors import DataError
from seqnets.data.forms import written_series
from seqnets.data.grid import continue_times, regular_ticks, regular_times, season_of
from seqnets.data.written import Times, Written
from seqnets.typing import Float, Int

__all__ = [
    "MAXIMUM_SERIES_BYTES",
    "Series",
    "future_times",
    "on_grid",
    "read_series",
    "season_of",
]

MAXIMUM_SERIES_BYTES = 2**29
"""Series files larger than 512 MiB after decompression are rejected."""


@dataclass(frozen=True, eq=False)
class Series:
    """A univariate time series on a regular grid.

    Attributes:
      id: name of the series.
      values: [T] float64, NaN where missing.
      times: [T] dates in nanoseconds without time zone; None without dates.
      frequency: pandas alias of the spacing of ``times``, such as ``"h"`` or ``"W-SAT"``.
      ticks: T integers, if times are integers instead of dates (years, numbers of time steps).

    Raises:
      ValueError: if ``values`` is not [T], or the number of times or ticks is not T.
    """

    id: str
    values: Float[np.ndarray, " T"]
    times: pd.DatetimeIndex | None = None
    frequency: str | None = None
    ticks: range | None = None

    def __post_init__(self) -> None:
        check_rank("values", self.values, 1, "T")
        for name, given in (("times", self.times), ("ticks", self.ticks)):
            if given is not None:
                check_shape(name, given, self.values.shape, "one per value")

    def split(self, at: int) -> tuple[Series, Series]:
        """Split into two series.

        Args:
          at: number of values of the first one; if negative, minus the number of the second one.
        """

        def part(span: slice) -> Series:
            return replace(
                self,
                values=self.values[span],
                times=None if self.times is None else self.times[span],
                ticks=None if self.ticks is None else self.ticks[span],
            )

        return part(slice(at)), part(slice(at, None))


def read_series(path: str | os.PathLike[str], shortest: int = 2) -> list[Series]:
    """Read the series of a CSV file, plain or gzip (detected by content).

    The layout is recognized from header and content: long (``unique_id, ds, y``), one series per
    row (as in the M4 competition), columns with times, or columns alone. The values of each series
    are sorted by time. Times missing between the first and the last become missing values, so that
    every series lies on a regular grid.

    Args:
      path: CSV file in UTF-8, separated by commas; after decompression at most 512 MiB, 16 Mi
        lines, and 64 Mi cells.
      shortest: minimum number of values of a series. A single value has no grid, so it cannot be
        followed by dates.

    Returns:
      At least one series, in order of appearance, each with at least one value that is not missing.

    Raises:
      DataError: if the file cannot be read; has no rows or rows of different lengths; has an
        invalid time, or a value that is neither missing nor a number within ±1e150; or if a series
        has a time twice, has no regular grid of at most ten points per value, has fewer than
        ``shortest`` values, or has only missing values.
    """
    name = os.fspath(path)
    found = written_series(name, MAXIMUM_SERIES_BYTES)
    return [on_grid(name, written, shortest) for written in found]


def on_grid(where: str, written: Written, shortest: int) -> Series:
    """Sort the values by time, and insert NaN where the regular grid has no value.

    Args:
      where: beginning of the error messages, such as the name of the file.
      written: the series as written in a file.
      shortest: minimum number of values.

    Raises:
      DataError: if a time occurs twice, the times do not lie on a grid, there are fewer values than
        ``shortest``, or all are missing.
    """
    label = f"{where}: series {shown(written.id)}"
    if len(written.values) < shortest:
        raise DataError(f"{label}: expected at least {shortest} values, got {len(written.values)}")
    if np.isnan(written.values).all():
        raise DataError(f"{label}: expected a value, got {len(written.values)} missing ones")
    if written.times is None:
        return Series(written.id, written.values)
    times, values = _in_order(label, written, written.times)
    if len(values) == 1:
        if isinstance(times, pd.DatetimeIndex):
            return Series(written.id, values, times)
        return Series(written.id, values, ticks=range(int(times[0]), int(times[0]) + 1))
    try:
        if not isinstance(times, pd.DatetimeIndex):
            ticks = regular_ticks(times)
            filled = _filled(values, np.searchsorted(ticks, times), len(ticks))
            step = int(ticks[1] - ticks[0])
            return Series(written.id, filled, ticks=range(int(ticks[0]), int(ticks[-1]) + 1, step))
        grid, frequency = regular_times(times)
    except ValueError as error:
        raise DataError(f"{label}: {error}") from error
    filled = _filled(values, grid.get_indexer(times), len(grid))
    return Series(written.id, filled, grid, frequency)


def _in_order(label: str, written: Written, times: Times) -> tuple[Times, Float[np.ndarray, " T"]]:
    """Times and values, sorted by time.

    Raises:
      DataError: if a time occurs twice.
    """
    ticks = np.asarray(times).astype(np.int64)
    order = np.argsort(ticks, kind="stable")
    twice = np.flatnonzero(np.diff(ticks[order]) == 0)
    if twice.size:
        pair = order[twice[0] : twice[0] + 2]
        first, second = (written.places[i] for i in pair)
        raise DataError(
            f"{label}: the time {times[pair[0]]} occurs twice, "
            f"on {written.unit} {first} and {second}"
        )
    return times[order], written.values[order]


def _filled(
    values: Float[np.ndarray, " n"], positions: Int[np.ndarray, " n"], length: int
) -> Float[np.ndarray, " T"]:
    filled = np.full(length, np.nan)
    filled[positions] = values
    return filled


def future_times(series: Series, horizon: int) -> pd.DatetimeIndex | Int[np.ndarray, " H"]:
    """The next times after the end of a series.

    Args:
      series: the series.
      horizon: number of times H, ≥ 1.

    Returns:
      [H] dates that continue the grid of the series; integers that continue its ``ticks``; or
      T + 1, T + 2, ... if it has neither.

    Raises:
      ValueError: if ``horizon`` is below 1, if a series with dates has no frequency, or if the
        dates exceed the range of 64-bit nanoseconds.
    """
    check_range("horizon", horizon, 1)
    if series.times is None:
        ticks = series.ticks or range(1, len(series.values) + 1)
        return ticks[-1] + ticks.step * np.arange(1, horizon + 1, dtype=np.int64)
    if series.frequency is None:
        raise ValueError(f"series {series.id!r}: expected a frequency with its dates, got None")
    try:
        return continue_times(series.times[-1], series.frequency, horizon)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"series {series.id!r}: no dates for {horizon} time steps after {series.times[-1]}: "
            f"{error}"
        ) from error
