"""Windows against a loop written from their docstring, and their errors."""

import chex
import numpy as np
import pytest

from seqnets.data.errors import DataError
from seqnets.data.series import Series
from seqnets.data.source import shapes_of
from seqnets.data.windows import FAR, LARGEST_TARGET, SeriesWindows, WindowShape, WindowSource

SHAPE = WindowShape(context=10, horizon=5, season=3, profile=2)


def make(rng, lengths, missing=0.0):
    """Random walks with holes, but never a hole at the start."""
    out = []
    for number, length in enumerate(lengths):
        values = 50 + np.cumsum(rng.normal(size=length))
        values[1:][rng.random(length - 1) < missing] = np.nan
        out.append(Series(f"s{number}", values, None, None))
    return out


def ending_at(series, cuts):
    """The series as they were known at the cuts."""
    return [Series(one.id, one.values[:cut]) for one, cut in zip(series, cuts, strict=True)]


def inputs(window):
    """What a window shows of the past, and of the steps to come."""
    return window.past, window.past_mask, window.future


def fill(values, m):
    values = list(values)
    for i, value in enumerate(values):
        if np.isnan(value):
            phase = values[i - m] if i >= m else np.nan
            values[i] = values[i - 1] if np.isnan(phase) else phase
    return np.array(values)


@pytest.mark.parametrize("shape", [WindowShape(5, 3, 2, 4), WindowShape(1, 1, 1, 1)])
def test_shapes_are_known_without_a_window(rng, shape):
    series = [Series("a", rng.normal(size=30))]
    window = SeriesWindows(series, shape).windows(np.zeros(7, int), np.full(7, 20))
    assert shape.shapes(7) == shapes_of(window)


def test_targets_and_base_by_hand(rng):
    values = np.arange(1.0, 13.0) ** 2  # seasonal changes 2*3*i + 9 are known
    windows = SeriesWindows([Series("a", values, None, None)], SHAPE)
    window = windows.windows(np.array([0]), np.array([7]))
    scale = np.mean(values[3:7] - values[:4])  # of the changes before step 7
    base = values[[4, 5, 6, 4, 5]]  # the season before step 7, repeated
    np.testing.assert_allclose(window.target[0], (values[7:12] - base) / scale, rtol=1e-6)
    np.testing.assert_array_equal(window.weight[0], 1)
    earlier = (values[[1, 2, 3, 1, 2]] - base) / scale  # two seasons before
    np.testing.assert_allclose(window.future[0, :, 0], FAR * np.arcsinh(earlier / FAR), rtol=1e-6)


def test_restore_undoes_the_scaling(rng):
    series = make(rng, [40, 25])
    windows = SeriesWindows(series, SHAPE)
    rows, cuts = np.array([0, 1]), np.array([30, 12])
    window = windows.windows(rows, cuts)
    restored = windows.restore(rows, cuts, window.target[..., None])[..., 0]
    for row, cut, values in zip(rows, cuts, restored, strict=True):
        # float32 targets: 1e-4 of values near 50
        np.testing.assert_allclose(values, series[row].values[cut : cut + 5], rtol=1e-4)


def test_zero_is_the_seasonal_naive_forecast(rng):
    series = make(rng, [40], missing=0.2)
    windows = SeriesWindows(series, SHAPE)
    forecast = windows.restore(np.array([0]), np.array([40]), np.zeros((1, 5, 1)))
    filled = fill(series[0].values, 3)
    np.testing.assert_allclose(forecast[0, :, 0], filled[[37, 38, 39, 37, 38]])


def test_the_past_against_a_loop(rng):
    series = make(rng, [40, 9], missing=0.2)
    windows = SeriesWindows(series, SHAPE)
    rows, cuts = np.array([0, 1]), np.array([33, 6])
    window = windows.windows(rows, cuts)
    for b, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        values, filled = series[row].values, fill(series[row].values, 3)
        real = [i for i in range(cut - 10, cut) if i >= 0]
        level, spread = np.mean(filled[real]), np.std(filled[real])
        scale = np.nanmean(np.abs(values[3:cut] - values[: cut - 3]))
        for place, i in enumerate(range(cut - 10, cut)):
            assert window.past_mask[b, place] == (i >= 0)
            if i < 0:
                np.testing.assert_array_equal(window.past[b, place], 0)
                continue
            change = (filled[i] - filled[i - 3]) / scale if i >= 3 else 0
            expected = [
                FAR * np.arcsinh((filled[i] - level) / spread / FAR),
                FAR * np.arcsinh(change / FAR),
                float(np.isfinite(values[i])),
            ]
            np.testing.assert_allclose(window.past[b, place], expected, rtol=1e-4, atol=1e-5)


def after(kind, size, rng):
    """What may follow a cut, of any size."""
    if kind == "missing":
        return np.full(size, np.nan)
    if kind == "extreme":
        return rng.choice([-1e300, 1e300, 0.0, np.nan], size)
    return rng.normal(0, 1e4, size)


def continued(one, cut, values):
    """A series with other values from a cut on."""
    return Series(one.id, np.concatenate([one.values[:cut], values]))


@pytest.mark.parametrize("kind", ["random", "extreme", "missing"])
def test_nothing_from_the_cut_on_reaches_an_input_or_a_unit(kind, rng):
    series = make(rng, [40, 30, 50, 12], missing=0.2)
    first = SeriesWindows(series, SHAPE).first_cut
    rows = np.arange(4)
    for _ in range(25):
        cuts = rng.integers(first, [len(one.values) for one in series])
        changed = [
            Series(
                one.id, np.concatenate([one.values[:cut], after(kind, len(one.values) - cut, rng)])
            )
            for one, cut in zip(series, cuts, strict=True)
        ]
        windows, others = SeriesWindows(series, SHAPE), SeriesWindows(changed, SHAPE)
        one, two = windows.windows(rows, cuts), others.windows(rows, cuts)
        chex.assert_trees_all_equal(inputs(one), inputs(two))
        assert np.any(one.target != two.target)
        quantiles = rng.normal(size=(4, 5, 2))
        chex.assert_trees_all_equal(
            windows.restore(rows, cuts, quantiles), others.restore(rows, cuts, quantiles)
        )


def test_a_window_of_training_shows_what_one_in_use_shows(rng):
    """The windows of a source, each beside that at the end of the series cut off there."""
    series = make(rng, [60, 25, 40], missing=0.2)

    class Recorded(SeriesWindows):
        def windows(self, rows, cuts):
            self.last = rows, cuts
            return super().windows(rows, cuts)

    windows = Recorded(series, SHAPE)
    source = WindowSource(windows, batch_size=6, seed=3, held_out=5)
    for k in range(10):
        batch, (rows, cuts) = source.batch(k), windows.last
        in_use = SeriesWindows(ending_at([series[row] for row in rows], cuts), SHAPE)
        chex.assert_trees_all_equal(inputs(batch), inputs(in_use.windows(np.arange(6), cuts)))


def test_missing_values_before_the_first_are_no_part_of_a_series(rng):
    late, whole = make(rng, [40, 40], missing=0.2)
    padded = Series("padded", np.concatenate([np.full(9, np.nan), late.values]))
    windows, others = (SeriesWindows([one, whole], SHAPE) for one in (padded, late))
    chex.assert_trees_all_equal(windows.lengths, others.lengths)
    rows = np.array([0, 1, 0])
    for cuts in rng.integers(1, 41, (20, 3)):
        chex.assert_trees_all_equal(windows.windows(rows, cuts), others.windows(rows, cuts))


@pytest.mark.parametrize(
    ("past", "unit"),
    [
        ([1, 2, 4, 3, 1, 9], 8 / 3),  # seasonal changes of 2, 1, 5
        ([1, 2, 4, 1, 2, 4], 1.8),  # seasonal changes of 0: those of one step, 1, 2, 3, 1, 2
        ([-5, -5, -5, -5], 5.0),  # no change at all: the size
        ([0, 0, 0, 0, 0], 1.0),  # nothing but zeros
        ([7], 7.0),
        ([2, np.nan, 3], 2.5),  # no two values a season or a step apart
    ],
)
def test_the_unit_of_a_cut(past, unit):
    windows = SeriesWindows([Series("a", np.array([*past, 100.0] + [0.0] * 4))], SHAPE)
    cut = np.array([len(past)])
    restored = windows.restore(np.array([0]), cut, np.array([[[0.0, 1.0]] * 5]))
    np.testing.assert_allclose(np.diff(restored), unit, rtol=1e-12)


def test_a_target_far_from_the_base_is_bounded():
    """A series that stands still and then jumps: its unit says nothing of the jump."""
    values = np.array([0.0] * 10 + [1e9, -1e9, 1e300, -1e300, 50.0])
    window = SeriesWindows([Series("a", values)], SHAPE).windows(np.array([0]), np.array([10]))
    np.testing.assert_array_equal(
        window.target[0], [LARGEST_TARGET, -LARGEST_TARGET, LARGEST_TARGET, -LARGEST_TARGET, 50]
    )
    np.testing.assert_array_equal(window.weight[0], 1)


def test_missing_targets_weigh_nothing(rng):
    series = make(rng, [40])
    series[0].values[31] = np.nan
    window = SeriesWindows(series, SHAPE).windows(np.array([0]), np.array([30]))
    np.testing.assert_array_equal(window.weight[0], [1, 0, 1, 1, 1])
    assert np.isfinite(window.target).all()


def test_the_end_of_a_series_has_no_targets(rng):
    series = make(rng, [40])
    window = SeriesWindows(series, SHAPE).windows(np.array([0]), np.array([40]))
    np.testing.assert_array_equal(window.weight, 0)
    assert np.isfinite(window.future).all()


def test_batches_are_functions_of_seed_and_number(rng):
    windows = SeriesWindows(make(rng, [60, 50, 70]), SHAPE)
    source = WindowSource(windows, batch_size=8, seed=1)
    source.batch(3)
    first, second = source.batch(5), WindowSource(windows, batch_size=8, seed=1).batch(5)
    chex.assert_trees_all_equal(first, second)
    assert np.any(first.target != source.batch(6).target)
    assert np.any(first.target != WindowSource(windows, batch_size=8, seed=2).batch(5).target)


def test_held_out_values_reach_no_training_batch(rng):
    series = make(rng, [30, 31])
    changed = [continued(one, -6, after("random", 6, rng)) for one in series]
    windows, others = SeriesWindows(series, SHAPE), SeriesWindows(changed, SHAPE)
    for held_out, equal in ((6, True), (0, False)):
        one, two = (
            [WindowSource(w, batch_size=16, seed=0, held_out=held_out).batch(k) for k in range(9)]
            for w in (windows, others)
        )
        if equal:
            chex.assert_trees_all_equal(one, two)
        else:
            assert any(np.any(a.target != b.target) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("values", [[5.0, 5.0, 5.0, 5.0], [0.0, 0.0], [3.0], [1e12, 1e12, 1e12]])
def test_constant_and_tiny_series_stay_finite(values):
    windows = SeriesWindows([Series("a", np.array(values), None, None)], SHAPE)
    window = windows.windows(np.array([0]), np.array([len(values)]))
    assert all(np.isfinite(x).all() for x in window)
    forecast = windows.restore(np.array([0]), np.array([len(values)]), np.zeros((1, 5, 1)))
    np.testing.assert_allclose(forecast, values[-1])


def test_errors(rng):
    with pytest.raises(DataError, match="at least one, got none"):
        SeriesWindows([], SHAPE)
    with pytest.raises(DataError, match=r"'bad'.*observed"):
        SeriesWindows([Series("bad", np.full(4, np.nan), None, None)], SHAPE)
    with pytest.raises(DataError, match="no series is long enough"):
        WindowSource(SeriesWindows(make(rng, [8]), SHAPE), batch_size=2, seed=0)
    windows = SeriesWindows(make(rng, [60]), SHAPE)
    with pytest.raises(ValueError, match="seed: expected a value in"):
        WindowSource(windows, batch_size=2, seed=-1)
    with pytest.raises(ValueError, match="k: expected a value in"):
        WindowSource(windows, batch_size=2, seed=0).batch(-1)
    with pytest.raises(ValueError, match="horizon"):
        WindowShape(context=10, horizon=0, season=3, profile=2)
