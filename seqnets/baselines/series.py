"""The forecast that costs nothing: what was one season ago."""

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
    """Repeat the last season, in a band that widens with the seasons ahead.

        y_{T+h} ~ Normal(x_t, k σ²),   t = T + h - k · season

    with k = 1, 2, ... the smallest for which x_t exists and is not missing, and σ² the mean of
    ``(x_t - x_{t-season})²`` over the pairs with both values present (0 if there is no pair).
    A phase of the season that was never seen takes the newest value of any phase, so a history
    shorter than one season is forecast too.

    Args:
      history: [T] values, NaN or infinite where missing.
      horizon: number of steps to forecast, H.
      season: steps of a season; 1 repeats the last value.
      levels: [Q] increasing, in (0, 1).

    Returns:
      Quantiles [H, Q] float64; every level has the same value where σ is 0.

    Raises:
      ValueError: if history is not [T] or has no value that is not missing, if horizon or
        season < 1, or the levels are not increasing in (0, 1).

    References:
      Hyndman, Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, 2021,
      sections 5.2 and 5.5 (there without missing values, and σ² with a correction for few).
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
    """The last of ``seen`` whole seasons before ``step``, or simply the last."""
    same_phase = seen[(step - seen) % season == 0]
    return int(same_phase[-1] if same_phase.size else seen[-1])
