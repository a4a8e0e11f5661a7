"""A frame gives the series that the CSV file of the same rows gives, and the same complaints."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqnets.data.cells import LARGEST
from seqnets.data.errors import DataError
from seqnets.data.frames import series_from_frame
from seqnets.data.series import read_series

NAN = np.nan


def check_equal(got, want):
    assert [one.id for one in got] == [one.id for one in want]
    for one, other in zip(got, want, strict=True):
        # Bit for bit, but NaN is NaN.
        a, b = (np.where(np.isnan(x), NAN, x).view(np.int64) for x in (one.values, other.values))
        np.testing.assert_array_equal(a, b)
        assert one.values.dtype == np.float64
        assert (one.frequency, one.ticks) == (other.frequency, other.ticks)
        assert (one.times is None) == (other.times is None)
        if one.times is not None:
            pd.testing.assert_index_equal(one.times, other.times, exact="equiv")


def from_file(frame, folder):
    path = folder / "long.csv"
    frame.to_csv(path, index=False)
    return read_series(path)


def outcome(call):
    try:
        return call()
    except DataError as error:
        return error


VALUES = st.lists(st.floats(-LARGEST, LARGEST) | st.just(NAN), min_size=1, max_size=6)
DATES = st.sampled_from(["h", "D", "W-SAT", "MS", "ME", "15min", "B"]).map(
    lambda frequency: lambda T: pd.date_range("2024-01-31", periods=T, freq=frequency)
)
ZONES = st.sampled_from(["Europe/Berlin", "UTC", "Asia/Kolkata"]).map(
    lambda zone: lambda T: pd.date_range("2024-03-30", periods=T, freq="h", tz=zone)
)
INTEGERS = st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10)).map(
    lambda grid: lambda T: grid[0] + grid[1] * np.arange(T)
)
TEXTS = st.just(lambda T: [f"2024Q{1 + i % 4}" if i < 4 else f"2025-0{i}" for i in range(T)])


@given(
    st.dictionaries(st.sampled_from(["a", "b c", "Ü", "7", "-"]), VALUES, min_size=1, max_size=4),
    st.one_of(DATES, ZONES, INTEGERS, TEXTS),
    st.randoms(use_true_random=False),
    st.sampled_from(["columns", "index", "both"]),
)
@settings(max_examples=150, deadline=None)
def test_a_frame_is_read_like_its_file(tmp_path_factory, written, times, random, form):
    parts = [
        pd.DataFrame({"unique_id": name, "ds": times(len(values)), "y": values})
        for name, values in written.items()
    ]
    frame = pd.concat(parts)
    rows = random.sample(range(len(frame)), random.randint(1, len(frame)))  # gaps, any order
    frame = frame.iloc[rows]
    want = outcome(lambda: from_file(frame, tmp_path_factory.getbasetemp()))
    given_form = {
        "columns": frame,
        "index": frame.set_index(["unique_id", "ds"]),
        "both": frame.set_index("ds"),
    }[form]
    got = outcome(lambda: series_from_frame(given_form))
    if isinstance(want, DataError):
        assert isinstance(got, DataError)
        told = str(want).partition(": ")[2]
        assert str(got).partition(": ")[2].partition(", on rows")[0] == told.partition(", on l")[0]
    else:
        check_equal(got, want)


def frame(**columns):
    return pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 3.0]} | columns)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (frame().drop(columns="y"), "frame: expected the columns .* without 'y'"),
        (frame().rename(columns={"y": "yy"}), "without 'y'; did you mean 'yy'"),
        (frame().rename(columns={"ds": 3}), "got 'unique_id', '3', 'y' without 'ds'"),
        (frame(ds=1).set_index("y", drop=False), "frame: two columns are named 'y'"),
        (frame().iloc[:0], "frame: expected rows of data, got none"),
        (frame(ds=[1, 2, 1]), "series 'a': the time 1 occurs twice, on rows 0 and 2"),
        (frame(ds=[0, 1, 10**12]), "series 'a': expected times on a regular grid"),
        (frame(ds=[1.0, 2.0, 3.0]), "row 0, column 'ds': expected a date .*, got '1.0'"),
        (
            frame(ds=pd.to_datetime(["2024-01-01", None, "2024-01-02"])),
            "row 1, column 'ds': .*got ''",
        ),
        (
            frame(ds=np.array(["2024", "2025", "3000"], "M8[s]")),
            "row 2, column 'ds': expected a dat",
        ),
        (frame(y=[1, -1.7e308, 2]), "row 1, column 'y': expected a number within ±1e"),
        (frame(y=[1, np.inf, 2]), "row 1, column 'y': expected a finite number, got 'inf'"),
        (frame(y=[True, False, True]), "row 0, column 'y': expected a number, got 'True'"),
        (frame(y=[1, "two", 3]), "row 1, column 'y': expected a number, got 'two'"),
        (frame(y=[1j, 2, 3]), "row 0, column 'y': expected a number"),
        (frame(y=NAN), "series 'a': expected a value, got 3 missing ones"),
        (
            frame(unique_id=["a", None, "a"]),
            "row 1, column 'unique_id': expected an identifier, got ''",
        ),
        (frame().iloc[:1], "series 'a': expected at least 2 values, got 1"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(DataError, match=message) as caught:
        series_from_frame(given)
    assert str(caught.value).startswith("frame: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "y", [["1", " 2.5", ""], [1, 2.5, None], pd.array([1, 2.5, None], "Float64")]
)
def test_numbers_in_any_column_that_holds_them(y):
    (one,) = series_from_frame(frame(y=y))
    np.testing.assert_array_equal(one.values, [1, 2.5, NAN])


@pytest.mark.parametrize(
    "days",
    [
        pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"]).as_unit("s"),
        pd.period_range("2024-01", periods=3, freq="M"),
        pd.Series(["2024-01", "2024-02", "2024-03"], dtype="category"),
        pd.Series([pd.Timestamp(2024, m, 1).date() for m in (1, 2, 3)], dtype=object),
        [20240101, 20240201, 20240301],
    ],
)
def test_dates_in_any_column_that_holds_them(days):
    (one,) = series_from_frame(frame(ds=days))
    assert one.frequency == "MS"
    assert one.times.tolist() == list(pd.date_range("2024-01-01", periods=3, freq="MS"))
    assert one.times.unit == "ns"


def test_names_are_texts():
    found = series_from_frame(frame(unique_id=[7, 8, 7]), shortest=1)
    assert [one.id for one in found] == ["7", "8"]


def test_one_value_where_that_will_do():
    (one,) = series_from_frame(frame().iloc[1:2], shortest=1)
    assert (one.values.tolist(), one.ticks) == ([2.0], range(2, 3))


def test_the_frame_is_left_as_it_is():
    given = frame(ds=[3, 1, 2])
    before = given.copy(deep=True)
    series_from_frame(given)[0].values[:] = 0
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize("given", [None, [1, 2], {"unique_id": ["a"]}, pd.Series([1.0])])
def test_only_frames(given):
    with pytest.raises(TypeError, match="frame: expected a pandas DataFrame, got"):
        series_from_frame(given)
