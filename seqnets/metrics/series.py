"""Metrics of forecasts, on the host in float64.

The functions take one series each and return one number; `evaluate_forecasts` combines many
series. Actual and past values that are NaN or infinite are missing and left out. A forecast is
never left out: where it is NaN, so is the metric, and a broken model cannot look like a good one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqnets.checks import check_levels, check_range, check_rank, check_same_shape, check_shape
from seqnets.typing import Float

__all__ = [
    "QuantileLoss",
    "coverage",
    "evaluate_forecasts",
    "mase",
    "seasonal_scale",
    "smape",
    "weighted_quantile_loss",
    "widest_interval",
]


class QuantileLoss(NamedTuple):
    """A quantile loss and the size of the values it was made on; add them to pool series."""

    total: float
    """Mean over the levels of ``2 Σ_h pinball``."""
    weight: float
    """``Σ_h |y_h|`` over the values that are not missing."""

    def __add__(self, other: QuantileLoss) -> QuantileLoss:  # type: ignore[override]
        """Pool the values of both."""
        return QuantileLoss(self.total + other.total, self.weight + other.weight)

    def ratio(self) -> float:
        """``total / weight``, the weighted quantile loss; NaN where the weight is 0."""
        return self.total / self.weight if self.weight > 0 else math.nan


def smape(actual: Float[np.ndarray, " H"], forecast: Float[np.ndarray, " H"]) -> float:
    """Symmetric mean absolute percentage error, in percent, between 0 and 200.

        mean_h 200 |y_h - f_h| / (|y_h| + |f_h|),   0/0 counting 0

    Args:
      actual: [H], NaN where missing.
      forecast: [H].

    Returns:
      The mean over the values that are not missing; NaN if there is none.

    Raises:
      ValueError: if the arrays are not [H] both.

    References:
      Makridakis, Spiliotis, Assimakopoulos, The M4 Competition, International Journal of
      Forecasting 36, 2020.
    """
    y, f = _present(actual, forecast)
    error, size = np.abs(y - f), np.abs(y) + np.abs(f)
    with np.errstate(invalid="ignore"):  # an infinite forecast: ∞/∞, NaN
        return _mean(200 * np.divide(error, size, out=np.zeros_like(size), where=size != 0))


def mase(
    actual: Float[np.ndarray, " H"],
    forecast: Float[np.ndarray, " H"],
    history: Float[np.ndarray, " T"],
    season: int,
) -> float:
    """Mean absolute scaled error: in units of the in-sample error of the seasonal naive method.

        mean_h |y_h - f_h| / mean_t |x_t - x_{t-season}|

    Args:
      actual: [H], NaN where missing.
      forecast: [H].
      history: [T] values before the forecast, NaN where missing.
      season: steps of a season; 1 compares neighbours.

    Returns:
      NaN if no actual value is present, or the scale is undefined (see `seasonal_scale`).

    Raises:
      ValueError: if actual and forecast are not [H] both, history is not [T] or season < 1.

    References:
      Hyndman, Koehler, Another look at measures of forecast accuracy, International Journal of
      Forecasting 22, 2006; with the season, as in the M4 competition.
    """
    y, f = _present(actual, forecast)
    return _mean(np.abs(y - f)) / seasonal_scale(history, season)


def seasonal_scale(history: Float[np.ndarray, " T"], season: int) -> float:
    """``mean_t |x_t - x_{t-season}|`` over the pairs with both values present.

    Returns:
      The scale, or NaN where nothing can be measured by it: no such pair (a history of at most
      one season), or a scale of 0 (an exactly periodic history).

    Raises:
      ValueError: if history is not [T] or season < 1.
    """
    history = np.asarray(history, np.float64)
    check_rank("history", history, 1, "T")
    check_range("season", season, 1)
    history = np.where(np.isfinite(history), history, np.nan)
    change = np.abs(history[season:] - history[:-season])
    scale = _mean(change[~np.isnan(change)])
    return scale if scale > 0 else math.nan


def weighted_quantile_loss(
    actual: Float[np.ndarray, " H"], quantiles: Float[np.ndarray, "H Q"], levels: Sequence[float]
) -> QuantileLoss:
    """Quantile loss relative to the size of the values, the mean over levels.

        Σ_h 2 pinball_q(y_h, f_hq) / Σ_h |y_h|,   averaged over the levels q

    With the level 0.5 alone this is Σ|y - f| / Σ|y|. Add the results of many series before
    taking the `QuantileLoss.ratio`: numerators and denominators are summed apart.

    Args:
      actual: [H], NaN where missing.
      quantiles: [H, Q] forecasts of the levels.
      levels: [Q] increasing, in (0, 1).

    Raises:
      ValueError: if the shapes do not fit or the levels are not increasing in (0, 1).

    References:
      Park, Maddix, Aubet, Kan, Gasthaus, Wang, Learning Quantile Functions without Quantile
      Crossing for Distribution-free Time Series Forecasting, 2021, arXiv:2111.06581.
    """
    q = check_levels("levels", levels)
    y, f = _present(actual, quantiles, q.size)
    error = y[:, None] - f  # [H, Q]
    pinball = np.maximum(q * error, (q - 1) * error)
    return QuantileLoss(float(2 * pinball.sum(axis=0).mean()), float(np.abs(y).sum()))


def coverage(
    actual: Float[np.ndarray, " H"], lower: Float[np.ndarray, " H"], upper: Float[np.ndarray, " H"]
) -> float:
    """Share of the values with ``lower <= y <= upper``; NaN if no value is present.

    Args:
      actual: [H], NaN where missing.
      lower: [H].
      upper: [H]. A NaN bound at a value that is present makes the result NaN.

    Raises:
      ValueError: if the arrays are not [H] all three.
    """
    check_same_shape(actual=actual, lower=lower, upper=upper)
    y, low = _present(actual, lower)
    _, high = _present(actual, upper)
    inside = np.where(np.isnan(low + high), np.nan, (low <= y) & (y <= high))
    return _mean(inside)


def widest_interval(levels: Sequence[float]) -> tuple[int, int] | None:
    """Positions of the outermost two levels that are symmetric, ``q`` and ``1 - q``, or None.

    The nominal coverage of the interval between them is ``levels[j] - levels[i]``.

    Raises:
      ValueError: if the levels are not increasing in (0, 1).

    Example:
      >>> widest_interval((0.05, 0.1, 0.5, 0.9))
      (1, 3)
    """
    q = check_levels("levels", levels)
    for low in range(q.size):
        (high,) = np.nonzero(np.isclose(q, 1 - q[low], rtol=0, atol=1e-9))
        if high.size and high[0] > low:
            return low, int(high[0])
    return None


def evaluate_forecasts(
    actuals: Sequence[Float[np.ndarray, " H"]],
    quantiles: Sequence[Float[np.ndarray, "H Q"]],
    levels: Sequence[float],
    histories: Sequence[Float[np.ndarray, " T"]],
    season: int,
) -> dict[str, float]:
    """All metrics over many series, with the median as the point forecast.

    Args:
      actuals: one [H] a series (lengths may differ), NaN where missing.
      quantiles: one [H, Q] a series.
      levels: [Q] increasing, in (0, 1), 0.5 among them.
      histories: one [T] a series, the values before the forecast.
      season: steps of a season, for the scale of the MASE.

    Returns:
      ``smape``: percent, mean over the series with a value present.
      ``mase``: mean over the series with a value present and a defined scale.
      ``mase_undefined``: number of series left out of ``mase``.
      ``weighted_quantile_loss``: of all series pooled.
      ``coverage``: share of all values, pooled, inside the widest symmetric interval of levels.
      ``coverage_nominal``: the probability of that interval, which ``coverage`` should be near;
      both are NaN where no two levels are symmetric.
      A metric without any series or value to measure is NaN.

    Raises:
      ValueError: if there is no series, the numbers of series differ, a series' shapes do not
        fit (the message names it), 0.5 is not among the levels, or season < 1.
    """
    q = check_levels("levels", levels)
    middle = np.flatnonzero(np.isclose(q, 0.5, rtol=0, atol=1e-9))
    if not middle.size:
        raise ValueError(f"levels: expected the median 0.5 among them, got {tuple(levels)}")
    _check_series(actuals, quantiles, histories, q.size)
    points = [np.asarray(quantile)[:, middle[0]] for quantile in quantiles]
    rows = list(zip(actuals, points, histories, strict=True))
    present = np.array([np.isfinite(actual).any() for actual in actuals])
    scaled = present & np.array([seasonal_scale(history, season) > 0 for history in histories])
    losses = [weighted_quantile_loss(y, f, levels) for y, f in zip(actuals, quantiles, strict=True)]
    covered, nominal = _pooled_coverage(actuals, quantiles, levels)
    return {
        "smape": _mean(np.array([smape(y, f) for y, f, _ in rows])[present]),
        "mase": _mean(np.array([mase(y, f, x, season) for y, f, x in rows])[scaled]),
        "mase_undefined": float(np.sum(~scaled)),
        "weighted_quantile_loss": sum(losses, QuantileLoss(0.0, 0.0)).ratio(),
        "coverage": covered,
        "coverage_nominal": nominal,
    }


def _check_series(
    actuals: Sequence[Float[np.ndarray, " H"]],
    quantiles: Sequence[Float[np.ndarray, "H Q"]],
    histories: Sequence[Float[np.ndarray, " T"]],
    levels: int,
) -> None:
    """Raise unless there are as many of each, and every series' shapes fit."""
    sizes = (len(actuals), len(quantiles), len(histories))
    if len(set(sizes)) > 1 or not actuals:
        raise ValueError(
            f"expected one actual, quantiles and history a series (and a series), got {sizes}"
        )
    for number, (actual, quantile) in enumerate(zip(actuals, quantiles, strict=True)):
        check_rank(f"actuals[{number}]", actual, 1, "H")
        check_rank(f"histories[{number}]", histories[number], 1, "T")
        shape = (*np.shape(actual), levels)
        check_shape(f"quantiles[{number}]", quantile, shape, "[H, Q] of its actuals")


def _pooled_coverage(
    actuals: Sequence[np.ndarray], quantiles: Sequence[np.ndarray], levels: Sequence[float]
) -> tuple[float, float]:
    """Measured and nominal coverage of the widest symmetric interval over all values."""
    interval = widest_interval(levels)
    if interval is None:
        return math.nan, math.nan
    low, high = interval
    pooled = np.concatenate([np.asarray(quantile, np.float64) for quantile in quantiles])
    covered = coverage(np.concatenate(actuals), pooled[:, low], pooled[:, high])
    return covered, float(levels[high] - levels[low])


def _present(
    actual: np.ndarray, forecast: np.ndarray, *columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64 where ``actual`` is not NaN, their shapes checked."""
    actual, forecast = np.asarray(actual, np.float64), np.asarray(forecast, np.float64)
    check_rank("actual", actual, 1, "H")
    check_shape("forecast", forecast, (*actual.shape, *columns), "[H] of the actual values")
    keep = np.isfinite(actual)
    return actual[keep], forecast[keep]


def _mean(values: np.ndarray) -> float:
    """The mean; NaN, without a warning, where there is nothing."""
    return float(values.mean()) if values.size else math.nan
