"""Parse times in files: integers, or dates in ISO 8601 and other common formats."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from seqnets.data.cells import Cells, is_number
from seqnets.typing import Int

__all__ = ["is_time", "parse_times"]

_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%m/%d/%y", "%d/%m/%y")
_NAMED_DAYS = ("%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
_MONTHS = ("%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y %b", "%Y-%b", "%m/%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
FORMATS = (*(day + clock for day in (*_DAYS, *_NAMED_DAYS) for clock in _CLOCKS), *_MONTHS)
"""Formats tried in this order if the times are not ISO 8601."""

EXPECTED = "a date such as 2024-01-31 or 2024-01-31 23:00, or an integer"


def parse_times(cells: Cells) -> pd.DatetimeIndex | Int[np.ndarray, " n"]:
    """Parse a column of times: all integers, or all dates of one format.

    Dates are ISO 8601 (``2024-01``, ``2024-01-31``, ``2024-01-31T23:00:00+02:00``), eight
    digits, quarters (``2024Q1``), or one of `FORMATS`. Times with an offset are converted to UTC.

    Returns:
      Dates in nanoseconds without time zone, or integers (such as years).

    Raises:
      DataError: at the first cell that is not such a time; if day and month are ambiguous; or if a
        date is outside the years 1678 to 2261.
    """
    dates = _dates(cells.texts)
    if len(dates) == 1:
        return dates[0]
    if len(dates) > 1:
        raise cells.wrong(0, "an unambiguous date (write year-month-day)")
    if all(map(_is_integer, cells.texts)):
        return np.array([int(cell) for cell in cells.texts], np.int64)
    # The longest readable prefix ends just before the invalid cell.
    wrong = bisect.bisect_left(
        range(1, len(cells.texts) + 1), True, key=lambda n: not _readable(cells.texts[:n])
    )
    raise cells.wrong(wrong, EXPECTED + (" like those before" if wrong else ""))


def is_time(cell: str) -> bool:
    """Return whether ``cell`` is a date; a plain number is one only if it is like 20240131."""
    return bool(_dates([cell]))


def _readable(cells: Sequence[str]) -> bool:
    return all(map(_is_integer, cells)) or bool(_dates(cells))


def _is_integer(cell: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,18}", cell) is not None


def _dates(cells: Sequence[str]) -> list[pd.DatetimeIndex]:
    """The distinct readings of ``cells`` as dates: none, one, or two if day/month is ambiguous."""
    if all(re.fullmatch("[0-9]{8}", cell) for cell in cells):
        return _readings(cells, ["%Y%m%d"])
    # pandas accepts words such as "now" as dates, and a number is not a date.
    if any(re.search("[0-9]", cell) is None or is_number(cell) for cell in set(cells)):
        return []
    return (
        _readings(cells, ["ISO8601"])
        or _readings([re.sub(r"^(\d{4})[- ]?[Qq]([1-4])$", _quarter, c) for c in cells], ["%Y-%m"])
        or _readings(cells, FORMATS)
    )


def _quarter(found: re.Match[str]) -> str:
    return f"{found[1]}-{3 * int(found[2]) - 2:02d}"


def _readings(cells: Sequence[str], formats: Sequence[str]) -> list[pd.DatetimeIndex]:
    found: list[pd.DatetimeIndex] = []
    for form in formats:
        try:
            parsed = pd.to_datetime(list(cells), format=form, utc=True).tz_localize(None)
            times = pd.DatetimeIndex(parsed).as_unit("ns")
        except (ValueError, OverflowError):  # OutOfBoundsDatetime is a ValueError
            continue
        if not times.hasnans and not any(times.equals(other) for other in found):
            found.append(times)
    return found
