import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnets.data.grid import continue_times, regular_ticks, regular_times, season_of

MONTH = pd.DateOffset(months=1)

# Start, step, the name expected, and the name pandas has for the same grid.
GRIDS = {
    "hours": ("2024-01-01 05:30", "h", "h"),
    "half hours": ("2024-01-01", "30min", "30min"),
    "seconds": ("2024-01-01", "10s", "10s"),
    "36 hours": ("2024-01-01", "36h", "36h"),
    "days": ("2024-02-27", "D", "D"),
    "three days": ("2024-02-27", "3D", "3D"),
    "business days": ("2024-02-27 09:00", "B", "B"),
    "Saturdays": ("1958-03-29", "7D", "W-SAT"),
    "fortnights": ("2024-01-03", "14D", "2W-WED"),
    "month starts": ("2024-01-01", "MS", "MS"),
    "month ends": ("2023-11-30", "ME", "ME"),
    "month ends at noon": ("2023-11-30 12:00", "ME", "ME"),
    "fifteenths": ("2024-01-15", MONTH, "MS"),
    "quarters": ("2024-04-01", "QS-JAN", "3MS"),
    "quarter ends": ("2024-03-31", "QE", "3ME"),
    "years": ("1970-01-01", "YS", "12MS"),
    "year ends": ("1970-12-31", "YE", "12ME"),
    "before 1970": ("1749-01-01", "MS", "MS"),
}


def grid_of(name, length=40):
    start, step, alias = GRIDS[name]
    return pd.date_range(start, periods=length, freq=step).as_unit("ns"), alias


def same(times, expected):
    assert times.dtype == np.dtype("datetime64[ns]")
    assert times.tolist() == expected.tolist()


@pytest.mark.parametrize("name", GRIDS)
def test_a_complete_grid_is_itself(name):
    times, alias = grid_of(name)
    grid, frequency = regular_times(times)
    same(grid, times)
    assert frequency == alias


@pytest.mark.parametrize("name", GRIDS)
def test_gaps_are_found(name, rng):
    times, alias = grid_of(name)
    inner = np.sort(rng.choice(np.arange(1, 39), 25, replace=False))
    grid, frequency = regular_times(times[[0, *inner, 39]])
    same(grid, times)
    assert frequency == alias


@pytest.mark.parametrize("name", GRIDS)
def test_the_grid_goes_on(name):
    times, alias = grid_of(name)
    more = continue_times(times[29], alias, 10)
    same(more, times[30:])


@pytest.mark.parametrize("name", GRIDS)
def test_two_times_make_a_grid(name):
    times, _ = grid_of(name, 2)
    grid, _ = regular_times(times)
    same(grid, times)


def test_holidays_do_not_make_business_days_plain_days():
    times = pd.bdate_range("2024-01-01", "2024-03-29").as_unit("ns")
    kept = times.delete([13, 14, 40])
    grid, frequency = regular_times(kept)
    assert (len(grid), frequency) == (len(times), "B")


def test_a_missing_day_does_not_make_business_days():
    days = pd.to_datetime(["2024-01-01", "2024-01-03", "2024-01-04", "2024-01-05"])
    grid, frequency = regular_times(days.as_unit("ns"))
    assert (len(grid), frequency) == (5, "D")


def test_two_missing_days_do_not_make_business_days():
    days = pd.date_range("2024-01-01", periods=14).as_unit("ns").delete([2, 3])
    grid, frequency = regular_times(days)
    assert (len(grid), frequency) == (14, "D")


def test_the_widest_step_that_meets_all():
    assert regular_ticks(np.array([0, 4, 8, 12, 14])).tolist() == list(range(0, 15, 2))
    assert regular_ticks(np.array([3, 9, 21])).tolist() == [3, 9, 15, 21]


def test_business_days_far_apart_are_no_grid(monkeypatch):
    """A few lines of a file must not become the days of centuries."""
    times = pd.to_datetime(
        ["2024-01-05", "2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11", "2260-01-05"]
    ).as_unit("ns")
    assert regular_times(times[:-1])[1] == "B"
    monkeypatch.setattr(pd, "date_range", None)  # nothing is made before it is counted
    with pytest.raises(ValueError, match="a grid through all 6 times has 61570 time"):
        regular_times(times)


def test_irregular_times_are_refused():
    times = pd.to_datetime(
        ["2024-01-01", "2024-01-02", "2024-01-03 00:00:01"], format="ISO8601"
    ).as_unit("ns")
    with pytest.raises(
        ValueError, match=r"2024-01-03 00:00:01 follows 2024-01-02 00:00:00, and a "
    ):
        regular_times(times)


def test_the_gap_shown_is_off_the_common_step():
    with pytest.raises(ValueError, match="721 follows 660, and a grid"):
        regular_ticks(np.array([0, 60, 660, 721]))


def test_the_limit_is_ten_times_the_values():
    assert len(regular_ticks(np.array([0, 1, 29]))) == 30
    with pytest.raises(
        ValueError, match="30 follows 1, and a grid through all 3 times has 31 time"
    ):
        regular_ticks(np.array([0, 1, 30]))


def test_the_months_of_an_irregularity_are_shown():
    times = pd.to_datetime(["1700-01-01", "1700-02-01", "2000-01-01"]).as_unit("ns")
    with pytest.raises(ValueError, match="2000-01 follows 1700-02"):
        regular_times(times)


def test_steps_beyond_64_bits():
    times = pd.DatetimeIndex(["1700-01-01", "2200-01-02"]).as_unit("ns")
    with pytest.raises(ValueError, match="expected times less than 292 years apart"):
        regular_times(times)


@given(st.lists(st.integers(-(10**17), 10**17), min_size=2, max_size=9, unique=True))
def test_a_grid_of_steps_holds_every_step(ticks):
    ticks = np.sort(np.array(ticks, np.int64))
    try:
        grid = regular_ticks(ticks)
    except ValueError:
        # One value in ten would do; the greatest divisor of the differences does not give it.
        span = int(ticks[-1]) - int(ticks[0])
        assert span // int(np.gcd.reduce(np.diff(ticks))) + 1 > 10 * len(ticks)
        return
    assert set(ticks.tolist()) <= set(grid.tolist())
    assert len(set(np.diff(grid).tolist())) == 1
    assert (grid[0], grid[-1]) == (ticks[0], ticks[-1])


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        *[("h", 24), ("H", 24), ("2h", 12), ("30min", 48), ("15min", 96), ("min", 1440)],
        *[("D", 7), ("B", 5), ("W", 52), ("W-SAT", 52), ("2W-WED", 26)],
        *[("MS", 12), ("ME", 12), ("3MS", 4), ("12MS", 1), ("QE", 4), ("QE-DEC", 4)],
        *[("QS-OCT", 4), ("YE", 1), ("YS-JAN", 1), ("Y", 1)],
        *[(None, None), ("", None), ("s", None), ("7min", None), ("2D", None), ("2YS", None)],
        *[("36h", None), ("week", None)],
    ],
)
def test_seasons(frequency, season):
    assert season_of(frequency) == season
