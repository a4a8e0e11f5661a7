"""Metrics of forecasts, on the host in float64.

Each function takes one series and returns one number; `evaluate_forecasts` combines many series.
Actual and past values that are NaN or infinite count as missing and are left out. Forecasts are
never left out: if one is NaN, so is the metric, so that a broken model cannot look like a good one.
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
    """A quantile loss and its weight, the size of the actual values; add them to pool series."""

    total: float
    """Mean over the levels of ``2 Σ_h pinball``."""
    weight: float
    """``Σ_h |y_h|`` over the values that are not missing."""

    def __add__(self, other: QuantileLoss) -> QuantileLoss:  # type: ignore[override]
        """Pool the values of both series."""
        return QuantileLoss(self.total + other.total, self.weight + other.weight)

    def ratio(self) -> float:
        """``total / weight``, the weighted quantile loss; NaN where the weight is 0."""
        return self.total / self.weight if self.weight > 0 else math.nan


def smape(actual: Float[np.ndarray, " H"], forecast: Float[np.ndarray, " H"]) -> float:
    """Symmetric mean absolute percentage error, in percent, between 0 and 200.

        mean_h 200 |y_h - f_h| / (|y_h| + |f_h|),   where 0/0 counts as 0

    Args:
      actual: [H] values y, NaN where missing.
      forecast: [H] values f.

    Returns:
      The mean over the values that are not missing; NaN if there are none.

    Raises:
      ValueError: if the arrays are not both [H].

    References:
      Makridakis, Spiliotis, Assimakopoulos, The M4 Competition, International Journal of
      Forecasting 36, 2020.
    """
    y, f = _present(actual, "forecast", forecast)
    error, size = np.abs(y - f), np.abs(y) + np.abs(f)
    with np.errstate(invalid="ignore"):  # ∞ / ∞ for an infinite forecast
        return _mean(200 * np.divide(error, size, out=np.zeros_like(size), where=size != 0))


def mase(
    actual: Float[np.ndarray, " H"],
    forecast: Float[np.ndarray, " H"],
    history: Float[np.ndarray, " T"],
    season: int,
) -> float:
    """Mean absolute scaled error, relative to the in-sample error of the seasonal naive method.

        mean_h |y_h - f_h| / mean_t |x_t - x_{t-season}|

    Args:
      actual: [H] values y, NaN where missing.
      forecast: [H] values f.
      history: [T] values x before the forecast, NaN where missing.
      season: length of a season in time steps, at least 1; 1 compares neighbors.

    Returns:
      The error, at least 0; NaN if no actual value is present or the scale is undefined (see
      `seasonal_scale`).

    Raises:
      ValueError: if actual and forecast are not both [H], history is not [T], or season < 1.

    References:
      Hyndman, Koehler, Another look at measures of forecast accuracy, International Journal of
      Forecasting 22, 2006; in the seasonal form of the M4 competition.
    """
    y, f = _present(actual, "forecast", forecast)
    return _mean(np.abs(y - f)) / seasonal_scale(history, season)


def seasonal_scale(history: Float[np.ndarray, " T"], season: int) -> float:
    """``mean_t |x_t - x_{t-season}|`` over the pairs with both values present.

    Args:
      history: [T] values x, NaN where missing.
      season: length of a season in time steps, at least 1.

    Returns:
      The scale, or NaN if it is undefined, because there is no such pair (e.g. a history of at
      most one season), or because the mean is 0 (an exactly periodic history).

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
    """Quantile loss relative to the size of the values, averaged over levels.

        Σ_h 2 pinball_q(y_h, f_hq) / Σ_h |y_h|,   averaged over the levels q

    With the single level 0.5, this is Σ|y - f| / Σ|y|. To pool several series, add their results
    and then call `QuantileLoss.ratio`, since numerators and denominators are summed separately.

    Args:
      actual: [H] values y, NaN where missing.
      quantiles: [H, Q] forecasts f at the levels.
      levels: [Q] increasing numbers in (0, 1).

    Returns:
      The numerator and the denominator, as a `QuantileLoss`.

    Raises:
      ValueError: if actual is not [H], quantiles is not [H, Q], or the levels are not increasing
        in (0, 1).

    References:
      Park, Maddix, Aubet, Kan, Gasthaus, Wang, Learning Quantile Functions without Quantile
      Crossing for Distribution-free Time Series Forecasting, 2021, arXiv:2111.06581.
    """
    q = check_levels("levels", levels)
    y, f = _present(actual, "quantiles", quantiles, q.size)
    error = y[:, None] - f  # [H, Q]
    pinball = np.maximum(q * error, (q - 1) * error)
    return QuantileLoss(float(2 * pinball.sum(axis=0).mean()), float(np.abs(y).sum()))


def coverage(
    actual: Float[np.ndarray, " H"], lower: Float[np.ndarray, " H"], upper: Float[np.ndarray, " H"]
) -> float:
    """Fraction of the values with ``lower <= y <= upper``.

    Args:
      actual: [H] values y, NaN where missing.
      lower: [H] lower bounds.
      upper: [H] upper bounds.

    Returns:
      The fraction, in [0, 1]; NaN if no value is present, or a bound of a present value is NaN.

    Raises:
      ValueError: if the three arrays are not all [H].
    """
    check_same_shape(actual=actual, lower=lower, upper=upper)
    y, low = _present(actual, "lower", lower)
    _, high = _present(actual, "upper", upper)
    inside = np.where(np.isnan(low + high), np.nan, (low <= y) & (y <= high))
    return _mean(inside)


def widest_interval(levels: Sequence[float]) -> tuple[int, int] | None:
    """Indices of the outermost pair of symmetric levels, ``q`` and ``1 - q``.

    The nominal coverage of the interval between them is ``levels[j] - levels[i]``.

    Args:
      levels: [Q] increasing numbers in (0, 1).

    Returns:
      ``(i, j)`` with i < j, or None if no two levels are symmetric.

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
      actuals: one [H] array per series (lengths may differ), NaN where missing.
      quantiles: one [H, Q] array per series, the forecasts at the levels.
      levels: [Q] increasing numbers in (0, 1), including 0.5.
      histories: one [T] array per series, the values before the forecast, NaN where missing.
      season: length of a season in time steps, for the scale of the MASE.

    Returns:
      A dictionary with these keys; a metric without any series or value to measure is NaN.

      * ``smape``: mean over the series with a value present, in percent.
      * ``mase``: mean over the series with a value present and a defined scale.
      * ``mase_undefined``: number of series left out of ``mase``.
      * ``weighted_quantile_loss``: for all series pooled.
      * ``coverage``: fraction of all values inside the widest symmetric interval of levels.
      * ``coverage_nominal``: the probability of that interval, to which ``coverage`` should be
        close; both are NaN if no two levels are symmetric.

    Raises:
      ValueError: if there are no series, the numbers of series differ, the shapes of a series do
        not match (the message names it), 0.5 is not among the levels, or season < 1.
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
    """Raise unless the numbers of arrays are equal and the shapes of every series match."""
    sizes = (len(actuals), len(quantiles), len(histories))
    if len(set(sizes)) > 1 or not actuals:
        raise ValueError(
            f"expected one actual, quantiles, and history per series, at least one, got {sizes}"
        )
    for number, (actual, quantile) in enumerate(zip(actuals, quantiles, strict=True)):
        check_rank(f"actuals[{number}]", actual, 1, "H")
        check_rank(f"histories[{number}]", histories[number], 1, "T")
        shape = (*np.shape(actual), levels)
        check_shape(f"quantiles[{number}]", quantile, shape, "[H, Q] of its actuals")


def _pooled_coverage(
    actuals: Sequence[np.ndarray], quantiles: Sequence[np.ndarray], levels: Sequence[float]
) -> tuple[float, float]:
    """Empirical and nominal coverage of the widest symmetric interval, over all values."""
    interval = widest_interval(levels)
    if interval is None:
        return math.nan, math.nan
    low, high = interval
    pooled = np.concatenate([np.asarray(quantile, np.float64) for quantile in quantiles])
    covered = coverage(np.concatenate(actuals), pooled[:, low], pooled[:, high])
    return covered, float(levels[high] - levels[low])


def _present(
    actual: np.ndarray, name: str, forecast: np.ndarray, *columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Check the shapes and return both in float64, where ``actual`` is finite.

    ``name`` is what errors call the forecast.
    """
    actual, forecast = np.asarray(actual, np.float64), np.asarray(forecast, np.float64)
    check_rank("actual", actual, 1, "H")
    check_shape(name, forecast, (*actual.shape, *columns), "[H] of the actual values")
    keep = np.isfinite(actual)
    return actual[keep], forecast[keep]


def _mean(values: np.ndarray) -> float:
    """The mean; NaN without a warning if there are no values."""
    return float(values.mean()) if values.size else math.nan
