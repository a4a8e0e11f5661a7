import math

import numpy as np
import pytest
from scipy.stats import norm

from seqnets.baselines import seasonal_naive

NAN = math.nan


def test_the_last_season_is_repeated(rng):
    history = rng.normal(size=11)
    forecast = seasonal_naive(history, 7, 3, (0.5,))
    np.testing.assert_array_equal(forecast[:, 0], [*history[-3:], *history[-3:], history[-3]])


def test_quantiles_by_a_loop(rng):
    history, season, levels = rng.normal(size=14), 4, (0.1, 0.5, 0.8)
    squares = [(history[t] - history[t - season]) ** 2 for t in range(season, 14)]
    expected = [
        [
            norm.ppf(q, history[14 - season + h % season], np.sqrt(h // season + 1) * sigma)
            for q in levels
        ]
        for h in range(9)
        for sigma in [np.sqrt(np.mean(squares))]
    ]
    # Two implementations of the normal quantile in float64.
    np.testing.assert_allclose(seasonal_naive(history, 9, season, levels), expected, rtol=1e-12)


def test_missing_values_are_taken_from_the_season_before_with_its_spread():
    # Season 2. Step 6 (even): x_4 missing, x_2 = 5 two seasons before. Step 7 (odd): x_5 = 9.
    history = [1.0, 4.0, 5.0, 7.0, NAN, 9.0]
    sigma = math.sqrt(((5 - 1) ** 2 + (7 - 4) ** 2 + (9 - 7) ** 2) / 3)
    low, high = norm.ppf([0.2, 0.9])
    expected = [
        [5 + sigma * math.sqrt(2) * low, 5 + sigma * math.sqrt(2) * high],
        [9 + sigma * low, 9 + sigma * high],
        [5 + sigma * math.sqrt(3) * low, 5 + sigma * math.sqrt(3) * high],
    ]
    np.testing.assert_allclose(seasonal_naive(history, 3, 2, (0.2, 0.9)), expected, rtol=1e-12)


@pytest.mark.parametrize("missing", [math.inf, -math.inf])
def test_infinite_values_are_missing_too(missing):
    forecasts = [
        seasonal_naive([1.0, 4.0, gap, gap, 5.0, gap], 4, 2, (0.2, 0.5)) for gap in (NAN, missing)
    ]
    np.testing.assert_array_equal(*forecasts)
    assert np.all(np.isfinite(forecasts[0]))


def test_a_history_shorter_than_a_season_is_repeated_and_filled_with_its_last_value():
    forecast = seasonal_naive([1.0, 2.0], 6, 4, (0.1, 0.5))
    np.testing.assert_array_equal(forecast, [[2, 2], [2, 2], [1, 1], [2, 2], [2, 2], [2, 2]])


def test_season_one_is_the_random_walk(rng):
    history = rng.normal(size=30)
    sigma = np.sqrt(np.mean(np.diff(history) ** 2))
    expected = history[-1] + sigma * np.sqrt(np.arange(1, 6)) * norm.ppf(0.7)
    np.testing.assert_allclose(seasonal_naive(history, 5, 1, (0.7,))[:, 0], expected, rtol=1e-12)


def test_the_band_covers_what_it_says(rng):
    # A seasonal random walk, of which the method is the exact forecast.
    steps = rng.normal(size=(2000, 12, 3))
    walks = np.cumsum(steps, axis=1).reshape(2000, 36)
    bands = np.stack([seasonal_naive(x[:27], 9, 3, (0.1, 0.9)) for x in walks])
    inside = (bands[..., 0] <= walks[:, 27:]) & (walks[:, 27:] <= bands[..., 1])
    # 2000 series: standard error 0.009; σ estimated from 24 changes costs about 0.01.
    np.testing.assert_allclose(inside.mean(axis=0), 0.8, atol=0.04)


def test_each_mistake_is_named():
    with pytest.raises(ValueError, match="history"):
        seasonal_naive(np.ones((3, 1)), 1, 1, (0.5,))
    for empty in ([], [NAN, NAN], [math.inf]):
        with pytest.raises(ValueError, match="history"):
            seasonal_naive(empty, 1, 1, (0.5,))
    with pytest.raises(ValueError, match="horizon"):
        seasonal_naive([1.0], 0, 1, (0.5,))
    with pytest.raises(ValueError, match="season"):
        seasonal_naive([1.0], 1, 0, (0.5,))
    with pytest.raises(ValueError, match="levels"):
        seasonal_naive([1.0], 1, 1, (0.9, 0.5))
