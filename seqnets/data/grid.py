"""The regular time grid of a series, and its seasonal period."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from seqnets.typing import Int

__all__ = ["continue_times", "regular_ticks", "regular_times", "season_of"]

GRID_LIMIT = 10
"""A regular grid may have at most this many points per value."""

Ticks = Int[np.ndarray, " T"]


def regular_times(times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, str]:
    """Find the regular grid through all of ``times``, and its pandas frequency.

    The grid is monthly if all times are on the same day of the month (``MS``, whatever the day) or
    all at month ends (``ME``), with a multiple such as ``3MS`` for quarters or ``12MS`` for years;
    else business days (``B``), if most intervals are one day and weekends are left out; else the
    widest fixed interval that includes every time.

    Args:
      times: [T], T ≥ 2, strictly increasing.

    Returns:
      The grid from the first to the last time, and its frequency.

    Raises:
      ValueError: if the grid would have more than 10 T points.
    """
    months = _months(times)
    if months is not None:
        return months
    if _is_business_daily(times):
        days = times.to_numpy().astype("datetime64[D]")
        _check_length(times.asi8, int(np.busday_count(days[0], days[-1])) + 1, _tick_name)
        return pd.date_range(times[0], times[-1], freq="B").as_unit("ns"), "B"
    ticks = regular_ticks(times.asi8, show=_tick_name)
    grid = pd.DatetimeIndex(ticks.view("datetime64[ns]"))
    return grid, _fixed_frequency(grid[1] - grid[0], grid[0])


def _months(times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, str] | None:
    """The monthly grid, if all times agree in day (or are month ends) and in time of day."""
    same_day = len(set(times.day)) == 1
    month_ends = bool((times.day == times.days_in_month).all())
    if not (same_day or month_ends) or len(set(times - times.normalize())) > 1:
        return None
    count = np.asarray(times.year * 12 + times.month, np.int64)
    ahead = (regular_ticks(count, show=_month_name) - count[0]).tolist()
    if month_ends:
        dates = [times[0] + pd.offsets.MonthEnd(months) for months in ahead]
    else:
        dates = [times[0] + pd.DateOffset(months=months) for months in ahead]
    alias = f"{ahead[1] if ahead[1] > 1 else ''}{'ME' if month_ends else 'MS'}"
    return pd.DatetimeIndex(dates).as_unit("ns"), alias


def _tick_name(tick: int) -> str:
    return str(pd.Timestamp(tick))


def _month_name(count: int) -> str:
    return f"{(count - 1) // 12}-{(count - 1) % 12 + 1:02d}"


def _is_business_daily(times: pd.DatetimeIndex) -> bool:
    days = np.diff(times.asi8) / pd.Timedelta(days=1).value
    daily = np.all(days % 1 == 0) and 2 * np.count_nonzero(days == 1) > len(days)
    return bool(daily and np.any(days == 3) and (times.day_of_week < 5).all())


def _fixed_frequency(step: pd.Timedelta, first: pd.Timestamp) -> str:
    days, rest = divmod(step, pd.Timedelta(days=1))
    if rest:
        return pd.tseries.frequencies.to_offset(step).freqstr
    weeks, odd = divmod(days, 7)
    count, name = (days, "D") if odd else (weeks, f"W-{first.day_name()[:3].upper()}")
    return f"{count if count > 1 else ''}{name}"


def regular_ticks(ticks: Ticks, show: Callable[[int], str] = str) -> Ticks:
    """The regular grid of integers through all of ``ticks`` with the widest possible spacing.

    Args:
      ticks: [T], T ≥ 2, strictly increasing.
      show: formats a tick for the error message.

    Raises:
      ValueError: if the grid would have more than 10 T points.
    """
    gaps = np.diff(ticks)
    if gaps.min() <= 0:  # overflow of 64-bit nanoseconds
        raise ValueError("expected times less than 292 years apart")
    step = np.gcd.reduce(gaps)
    length = (int(ticks[-1]) - int(ticks[0])) // int(step) + 1
    _check_length(ticks, length, show)
    return ticks[0] + step * np.arange(length, dtype=np.int64)


def _check_length(ticks: Ticks, length: int, show: Callable[[int], str]) -> None:
    """Raise if a grid of this length is too long for its ticks, before it is created."""
    if length > GRID_LIMIT * len(ticks):
        odd = _oddest(np.diff(ticks))
        raise ValueError(
            f"expected times on a regular grid with few gaps; {show(ticks[0])}, {show(ticks[1])} "
            f"come first, but {show(ticks[odd + 1])} follows {show(ticks[odd])}, and a grid "
            f"through all {len(ticks)} times has {length} time steps"
        )


def _oddest(gaps: Ticks) -> int:
    """Index of the first gap that is not a multiple of the most common one, else of the widest."""
    sizes, counts = np.unique(gaps, return_counts=True)
    rest = gaps % sizes[np.argmax(counts)]
    return int(np.argmax(rest > 0) if rest.any() else np.argmax(gaps))


def continue_times(last: pd.Timestamp, frequency: str, horizon: int) -> pd.DatetimeIndex:
    """The ``horizon`` times after ``last`` on the grid of ``frequency``."""
    offset = pd.tseries.frequencies.to_offset(frequency)
    if offset.is_on_offset(last):
        return pd.date_range(last, periods=horizon + 1, freq=offset)[1:].as_unit("ns")
    ahead = [last + pd.DateOffset(months=offset.n * i) for i in range(1, horizon + 1)]
    return pd.DatetimeIndex(ahead).as_unit("ns")


_SEASONS = {
    **dict.fromkeys(("h", "H"), 24),
    **dict.fromkeys(("min", "T"), 24 * 60),
    "D": 7,
    "B": 5,
    "W": 52,
    **dict.fromkeys(("MS", "ME", "M", "BMS", "BME", "BM", "WOM", "LWOM"), 12),
    **dict.fromkeys(("QS", "QE", "Q", "BQS", "BQE", "BQ"), 4),
    **dict.fromkeys(("YS", "YE", "Y", "A", "AS", "BYS", "BYE"), 1),
}


def season_of(frequency: str | None) -> int | None:
    """Seasonal period of a frequency: a day for hours and minutes, a week for days, else a year.

    ``h`` 24, ``30min`` 48, ``15min`` 96, ``D`` 7, ``B`` 5, ``W`` 52, ``MS`` or ``ME`` 12, ``QS``
    or ``QE`` 4, ``YS`` or ``YE`` 1.

    Args:
      frequency: a pandas alias with optional multiple and anchor, such as ``2h`` or ``W-SAT``.

    Returns:
      The period in time steps; None for other frequencies, or if the spacing does not divide the
      season.
    """
    found = re.fullmatch(r"([0-9]*)([A-Za-z]+)(-.*)?", frequency or "")
    if found is None or found[2] not in _SEASONS:
        return None
    season, remainder = divmod(_SEASONS[found[2]], int(found[1] or 1) or 1)
    return season if season and not remainder else None
