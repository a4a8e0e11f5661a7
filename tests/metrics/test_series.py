import csv
import gzip
import math

import numpy as np
import pytest

from seqnets.baselines import seasonal_naive
from seqnets.metrics import (
    QuantileLoss,
    coverage,
    evaluate_forecasts,
    mase,
    seasonal_scale,
    smape,
    weighted_quantile_loss,
    widest_interval,
)

NAN = math.nan
EXACT = {"rel": 1e-12}  # float64, a handful of operations


def test_smape_by_hand():
    # 200 · (1/3, 0/0 = 0, 4/4) / 3
    assert smape([1, 0, 2], [2, 0, -2]) == pytest.approx(200 * (1 / 3 + 0 + 1) / 3, **EXACT)


def test_smape_leaves_missing_values_out():
    assert smape([1, NAN, 2], [2, 5, 2]) == pytest.approx(200 * (1 / 3) / 2, **EXACT)
    assert math.isnan(smape([NAN], [1]))


def test_mase_by_hand():
    # Scale of season 2: (|3-1| + |2-2| + |7-3|) / 3 = 2; errors 1 and 3.
    assert mase([5, 5], [4, 8], [1, 2, 3, 2, 7], 2) == pytest.approx(2 / 2, **EXACT)


def test_mase_leaves_missing_values_out():
    # Pairs without NaN, season 1: (1, 3) and (5, 6): scale 1.5; only the error 3 counts.
    assert mase([NAN, 5], [4, 8], [1, 3, NAN, 5, 6], 1) == pytest.approx(2, **EXACT)


@pytest.mark.parametrize(
    ("history", "season"),
    [([4, 4, 4], 1), ([1, 2, 1, 2], 2), ([1, 2], 2), ([1, 2], 3), ([], 1), ([1, NAN, 2], 1)],
)
def test_scale_and_mase_are_nan_where_nothing_can_be_measured(history, season):
    assert math.isnan(seasonal_scale(history, season))
    assert math.isnan(mase([1.0], [2.0], history, season))


def test_weighted_quantile_loss_by_hand():
    # q 0.1: errors 1, -2 -> 0.1, 1.8; q 0.9: errors -1, 0 -> 0.1, 0. Twice the sums: 3.8, 0.2.
    loss = weighted_quantile_loss([3, -1], [[2, 4], [1, -1]], (0.1, 0.9))
    assert loss.total == pytest.approx((3.8 + 0.2) / 2, **EXACT)
    assert loss.weight == 4
    assert loss.ratio() == pytest.approx(0.5, **EXACT)


def test_weighted_quantile_loss_of_the_median_is_the_relative_absolute_error(rng):
    y, f = rng.normal(size=(2, 9))
    ratio = weighted_quantile_loss(y, f[:, None], (0.5,)).ratio()
    assert ratio == pytest.approx(np.abs(y - f).sum() / np.abs(y).sum(), **EXACT)


def test_quantile_losses_add_up_to_that_of_the_whole(rng):
    levels = (0.2, 0.5, 0.7)
    y, q = rng.normal(size=10), rng.normal(size=(10, 3))
    y[[2, 7]] = NAN
    parts = [weighted_quantile_loss(y[i:j], q[i:j], levels) for i, j in ((0, 3), (3, 10))]
    whole = weighted_quantile_loss(y, q, levels)
    assert parts[0] + parts[1] == pytest.approx(whole, **EXACT)
    assert isinstance(parts[0] + parts[1], QuantileLoss)


def test_quantile_loss_of_zeros_is_nan():
    assert math.isnan(weighted_quantile_loss([0.0], [[1.0]], (0.5,)).ratio())


def test_coverage_by_hand():
    # Bounds belong to the interval; the missing value does not count.
    share = coverage([1, 2, 3, NAN, 9], [1, 0, 4, 0, 0], [2, 2, 5, 1, 1])
    assert share == pytest.approx(2 / 4, **EXACT)
    assert math.isnan(coverage([NAN], [0], [1]))


@pytest.mark.parametrize("missing", [math.inf, -math.inf])
def test_infinite_values_are_missing_as_nan_is(missing):
    def evaluate(gap):
        y, x = np.array([1.0, gap, 3.0]), np.array([1.0, gap, gap, 2.0, 4.0])
        q = np.array([[0.0, 2, 4], [0.0, 1, 5], [1.0, 1, 2]])
        return evaluate_forecasts([y], [q], (0.1, 0.5, 0.9), [x], 1)

    assert evaluate(missing) == evaluate(NAN)
    assert all(math.isfinite(value) for value in evaluate(missing).values())


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.1, 0.5, 0.9), (0, 2)),
        ((0.05, 0.3, 0.5, 0.7), (1, 3)),
        (tuple((np.arange(1, 20) / 20).tolist()), (0, 18)),
        ((0.5,), None),
        ((0.1, 0.5), None),
    ],
)
def test_widest_interval(levels, expected):
    assert widest_interval(levels) == expected


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_broken_forecast_is_never_left_out(bad):
    levels = (0.1, 0.5, 0.9)
    quantiles = [np.ones((2, 3)), np.array([[1.0, 1, 1], [bad, bad, bad]])]
    actuals, histories = [np.array([1.0, 2.0])] * 2, [np.array([1.0, 2.0, 4.0])] * 2
    result = evaluate_forecasts(actuals, quantiles, levels, histories, 1)
    assert not math.isfinite(result["smape"])
    assert not math.isfinite(result["mase"])
    assert not math.isfinite(result["weighted_quantile_loss"])
    assert math.isnan(result["coverage"]) == math.isnan(bad)
    assert result["mase_undefined"] == 0


def test_evaluate_forecasts_equals_a_loop_over_ragged_series(rng):
    levels = (0.1, 0.4, 0.5, 0.9)
    lengths = (3, 5, 4)
    actuals = [rng.normal(size=n) for n in lengths]
    actuals[1][2] = NAN
    quantiles = [np.sort(rng.normal(size=(n, 4)), axis=-1) for n in lengths]
    histories = [rng.normal(size=20), np.ones(20), rng.normal(size=13)]  # the second has no scale

    result = evaluate_forecasts(actuals, quantiles, levels, histories, season=4)

    smapes, mases, inside, loss, weight = [], [], [], 0.0, 0.0
    for y, q, x in zip(actuals, quantiles, histories, strict=True):
        real = [h for h in range(len(y)) if y[h] == y[h]]
        smapes.append(
            np.mean([200 * abs(y[h] - q[h, 2]) / (abs(y[h]) + abs(q[h, 2])) for h in real])
        )
        scale = np.mean([abs(x[t] - x[t - 4]) for t in range(4, len(x))])
        if scale > 0:
            mases.append(np.mean([abs(y[h] - q[h, 2]) for h in real]) / scale)
        for h in real:
            inside.append(q[h, 0] <= y[h] <= q[h, 3])
            weight += abs(y[h])
            for level, value in zip(levels, q[h], strict=True):
                error = y[h] - value
                loss += 2 * (level * error if error >= 0 else (level - 1) * error) / 4
    assert result == pytest.approx(
        {
            "smape": np.mean(smapes),
            "mase": np.mean(mases),
            "mase_undefined": 1,
            "weighted_quantile_loss": loss / weight,
            "coverage": np.mean(inside),
            "coverage_nominal": 0.8,
        },
        **EXACT,
    )


def test_a_series_without_actual_values_does_not_count():
    levels = (0.5,)
    alone = evaluate_forecasts([np.array([1.0])], [np.array([[2.0]])], levels, [[1.0, 2.0]], 1)
    both = evaluate_forecasts(
        [np.array([1.0]), np.array([NAN])], [np.array([[2.0]])] * 2, levels, [[1.0, 2.0]] * 2, 1
    )
    for name in ("smape", "mase", "weighted_quantile_loss"):
        assert both[name] == alone[name] != 0
    assert (alone["mase_undefined"], both["mase_undefined"]) == (0, 1)
    assert math.isnan(both["coverage"])  # no symmetric levels
    assert math.isnan(both["coverage_nominal"])


def test_each_mistake_is_named():
    y, q, x = [np.ones(2)], [np.ones((2, 1))], [np.ones(3)]
    with pytest.raises(ValueError, match="forecast: expected shape"):
        smape(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="actual: expected shape"):
        mase(np.ones((3, 1)), np.ones((3, 1)), np.ones(3), 1)
    with pytest.raises(ValueError, match="history"):
        seasonal_scale(np.ones((3, 1)), 1)
    with pytest.raises(ValueError, match="season"):
        seasonal_scale(np.ones(3), 0)
    with pytest.raises(ValueError, match="quantiles: expected shape"):
        weighted_quantile_loss(np.ones(3), np.ones((3, 2)), (0.5,))
    with pytest.raises(ValueError, match="levels"):
        weighted_quantile_loss(np.ones(3), np.ones((3, 2)), (0.5, 0.5))
    with pytest.raises(ValueError, match="upper"):
        coverage(np.ones(3), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="levels"):
        widest_interval((0.0, 1.0))
    with pytest.raises(ValueError, match="median"):
        evaluate_forecasts(y, q, (0.4,), x, 1)
    with pytest.raises(ValueError, match="season"):
        evaluate_forecasts(y, q, (0.5,), x, 0)
    with pytest.raises(ValueError, match="one actual"):
        evaluate_forecasts([], [], (0.5,), [], 1)
    with pytest.raises(ValueError, match="one actual"):
        evaluate_forecasts(y, q * 2, (0.5,), x, 1)
    with pytest.raises(ValueError, match=r"actuals\[1\]"):
        evaluate_forecasts([*y, np.ones((2, 2))], q * 2, (0.5,), x * 2, 1)
    with pytest.raises(ValueError, match=r"histories\[0\]"):
        evaluate_forecasts(y, q, (0.5,), [np.ones((3, 1))], 1)
    with pytest.raises(ValueError, match=r"quantiles\[1\]"):
        evaluate_forecasts(y * 2, [*q, np.ones((3, 1))], (0.5,), x * 2, 1)


@pytest.mark.data
def test_seasonal_naive_on_m4_hourly_has_the_published_scores(data_dir):
    def read(part):
        with gzip.open(data_dir / "series" / f"M4-Hourly-{part}.csv.gz", "rt") as file:
            rows = list(csv.reader(file))[1:]
        return [np.array([float(value) for value in row[1:] if value]) for row in rows]

    histories, actuals = read("train"), read("test")
    levels = tuple((np.arange(1, 10) / 10).tolist())
    quantiles = [seasonal_naive(x, 48, 24, levels) for x in histories]
    result = evaluate_forecasts(actuals, quantiles, levels, histories, 24)
    # Competition's table: 13.912 and 1.193; the tolerance is half of its last digit.
    assert result["smape"] == pytest.approx(13.912, abs=5e-4)
    assert result["mase"] == pytest.approx(1.193, abs=5e-4)
    # GIFT-Eval's table for seasonal naive: mean weighted quantile loss 0.0376.
    assert result["weighted_quantile_loss"] == pytest.approx(0.0376, abs=5e-5)
    assert 0.75 < result["coverage"] < 0.9  # nominal 0.8
