"""Series from frames equal those from CSV files of the same content, bit for bit."""

import numpy as np
import pandas as pd
import pytest

from seqnets.data import DataError, checksum_of_series, read_series, series_from_frame


def long(times, rng, ids="ab"):
    parts = [
        pd.DataFrame({"unique_id": name, "ds": times, "y": rng.normal(size=len(times))})
        for name in ids
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[3, "y"] = np.nan
    return frame


TIMES = {
    "days": pd.date_range("2024-01-30", periods=12),
    "hours": pd.date_range("2024-01-30 20:00", periods=12, freq="h"),
    "months": pd.date_range("2024-01-31", periods=12, freq="ME"),
    "business": pd.bdate_range("2024-01-30", periods=12),
    "zoned": pd.date_range("2024-01-30", periods=12, freq="h", tz="Europe/Berlin"),
    "years": np.arange(1990, 2002),
    "steps": np.arange(0, 36, 3),
    "text": [f"2024-{month:02d}" for month in range(1, 13)],
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_a_frame_is_its_csv_file(times, tmp_path, rng):
    frame = long(times, rng).sample(frac=1, random_state=1)
    frame.to_csv(tmp_path / "series.csv", index=False)
    want = read_series(tmp_path / "series.csv")
    for given in (frame, frame.set_index("unique_id"), frame.set_index(["unique_id", "ds"])):
        got = series_from_frame(given.assign(other=1))
        assert [one.id for one in got] == [one.id for one in want]
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
            assert (one.frequency, one.steps) == (other.frequency, other.steps)
            assert (one.times is None) == (other.times is None)
            assert one.times is None or one.times.equals(other.times)
        assert checksum_of_series(got) == checksum_of_series(want)


def changed(**columns):
    frame = pd.DataFrame({"unique_id": "a", "ds": pd.date_range("2024", periods=4), "y": 1.0})
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (changed().drop(columns="y"), "unique_id, ds, y, without 'y'"),
        (changed().rename(columns={"unique_id": "id"}), "without 'unique_id'"),
        (changed().iloc[:0], "expected rows of data, got none"),
        (changed(y=[1, 2, np.inf, 4]), "row 2, column 'y': expected a finite number"),
        (changed(y=["1", "2", "x", "4"]), "row 2, column 'y': expected a number, got 'x'"),
        (changed(y=[True, False, True, True]), "row 0, column 'y'"),
        (changed(ds=["2024-01-01", "2024-01-02", "soon", "2024-01-04"]), "row 2, column 'ds'"),
        (changed(ds=[1, 2, 2, 4]), "the time 2 comes twice, on rows 1 and 2"),
        (changed(ds=pd.to_datetime(["2024-01-01", None, "2024-01-03", "2024-01-04"])), "row 1"),
        (changed(unique_id=["a", None, "a", "a"]), "row 1, column 'unique_id'"),
        (changed(y=np.nan), "expected a value, got 4 missing ones"),
        (changed().iloc[:1], "expected at least 2 values, got 1"),
        (changed(ds=[0, 1, 2, 10**9]), "series 'a'"),
    ],
)
def test_what_is_wrong_is_named(frame, message):
    with pytest.raises(DataError, match=f"frame: .*{message}|{message}"):
        series_from_frame(frame)


@pytest.mark.parametrize("frame", [None, {"y": [1]}, np.ones(3), pd.Series([1.0])])
def test_what_is_no_frame(frame):
    with pytest.raises(TypeError, match="frame: expected a pandas DataFrame"):
        series_from_frame(frame)
