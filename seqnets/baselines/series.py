"""The seasonal naive forecast: the values of the last season."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from seqnets.checks import check_levels, check_range, check_rank
from seqnets.typing import Float

__all__ = ["seasonal_naive"]


def seasonal_naive(
    history: Float[np.ndarray, " T"], horizon: int, season: int, levels: Sequence[float]
) -> Float[np.ndarray, "H Q"]:
    """Repeat the last season, with an interval that widens with every season ahead.

        y_{T+h} ~ Normal(x_t, k σ²),   t = T + h - k · season

    where k = 1, 2, ... is the smallest number for which x_t exists and is not missing, and σ² is
    the mean of ``(x_t - x_{t-season})²`` over the pairs with both values present (0 without pairs).
    A phase of the season without any value gets the last value of the history, so a history
    shorter than one season is allowed.

    Args:
      history: [T] values x, NaN or infinite where missing.
      horizon: number of time steps H to forecast, at least 1.
      season: length of a season in time steps, at least 1; 1 repeats the last value.
      levels: [Q] increasing numbers in (0, 1).

    Returns:
      Quantiles [H, Q] float64; they are equal for all levels if σ is 0.

    Raises:
      ValueError: if history is not [T] or has no finite value, horizon or season is below 1, or
        the levels are not increasing in (0, 1).

    References:
      Hyndman, Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, 2021,
      sections 5.2 and 5.5 (there without missing values, and with a degrees-of-freedom
      correction of σ²).
    """
    history = np.asarray(history, np.float64)
    check_rank("history", history, 1, "T")
    check_range("horizon", horizon, 1)
    check_range("season", season, 1)
    z = np.array([NormalDist().inv_cdf(level) for level in check_levels("levels", levels)])
    (seen,) = np.nonzero(np.isfinite(history))
    if not seen.size:
        raise ValueError(f"history: expected a finite value, got {history.size} values")
    steps = np.arange(history.size, history.size + horizon)
    source = np.array([_newest(seen, int(step), season) for step in steps])
    ahead = np.ceil((steps - source) / season)
    past = np.where(np.isfinite(history), history, np.nan)
    change = past[season:] - past[:-season]
    change = change[~np.isnan(change)]
    sigma = np.sqrt(np.mean(change**2)) if change.size else 0.0
    return history[source][:, None] + sigma * np.sqrt(ahead)[:, None] * z


def _newest(seen: np.ndarray, step: int, season: int) -> int:
    """The last index in ``seen`` that is whole seasons before ``step``, else the last index."""
    same_phase = seen[(step - seen) % season == 0]
    return int(same_phase[-1] if same_phase.size else seen[-1])
