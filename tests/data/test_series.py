import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqnets.data import series as series_module
from seqnets.data.cells import LARGEST
from seqnets.data.errors import DataError
from seqnets.data.series import Series, future_times, read_series

NAN = np.nan


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "file.csv"
        path.write_text(content, encoding="utf-8", newline="")
        return read_series(path)

    return read


def check_contract(series):
    """What every list of series from a file satisfies."""
    assert series
    for one in series:
        assert one.values.dtype == np.float64
        assert len(one.values) >= 2
        assert not np.isnan(one.values).all()
        assert not np.isinf(one.values).any()
        assert one.times is None or one.ticks is None
        assert (one.times is None) == (one.frequency is None)
        for grid in (one.times, one.ticks):
            assert grid is None or len(grid) == len(one.values)
        if one.times is not None:
            assert one.times.is_monotonic_increasing
            assert one.times.is_unique


class TestReadSeries:
    def test_times_are_sorted_and_gaps_filled(self, read):
        (one,) = read("date,y\n2024-01-05,5\n2024-01-01,1\n2024-01-02,2\n2024-01-03,\n")
        np.testing.assert_array_equal(one.values, [1, 2, NAN, NAN, 5])
        assert one.times.tolist() == pd.date_range("2024-01-01", periods=5).tolist()
        assert one.frequency == "D"
        assert one.ticks is None

    def test_each_series_of_a_long_file_has_its_own_grid(self, read):
        first, second = read(
            "unique_id,ds,y\na,2024-01-01,1\nb,2024-03-01 02:00,2\na,2024-02-01,3\n"
            "b,2024-03-01 00:00,4\na,2024-04-01,5\nb,2024-03-01 01:00,6\n"
        )
        np.testing.assert_array_equal(first.values, [1, 3, NAN, 5])
        np.testing.assert_array_equal(second.values, [4, 6, 2])
        assert (first.frequency, second.frequency) == ("MS", "h")

    def test_integers_are_ticks(self, read):
        (one,) = read("unique_id,ds,y\na,1960,3\na,1950,1\na,1970,4\na,1990,5\n")
        np.testing.assert_array_equal(one.values, [1, 3, 4, NAN, 5])
        assert one.times is None
        assert one.frequency is None
        assert one.ticks == range(1950, 1991, 10)

    def test_without_times(self, read):
        (one,) = read("1\nNaN\n3\n")
        np.testing.assert_array_equal(one.values, [1, NAN, 3])
        assert (one.id, one.times, one.frequency, one.ticks) == ("file", None, None, None)

    def test_gzip_is_told_by_content(self, tmp_path):
        path = tmp_path / "series.csv"
        path.write_bytes(gzip.compress(b"y\n1\n2\n"))
        assert read_series(str(path))[0].values.tolist() == [1, 2]

    def test_not_text(self, tmp_path, rng):
        path = tmp_path / "series.csv"
        path.write_bytes(b"y\n1\n" + rng.bytes(1000))
        with pytest.raises(DataError, match=r"series.csv: line [0-9]+: expected UTF-8 text"):
            read_series(path)

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match=r"/none.csv: cannot be read: No such file"):
            read_series(tmp_path / "none.csv")
        with pytest.raises(DataError, match="cannot be read: expected a regular file, got a dir"):
            read_series(tmp_path)

    def test_the_limit(self, read, monkeypatch):
        monkeypatch.setattr(series_module, "MAXIMUM_SERIES_BYTES", 5)
        with pytest.raises(DataError, match="expected at most 5 bytes"):
            read("y\n1\n2\n")

    @given(
        st.dictionaries(
            st.text("abcXYZ 0_é-", min_size=1).map(str.strip).filter(bool),
            st.lists(st.floats(-LARGEST, LARGEST) | st.just(NAN), min_size=2, max_size=6).filter(
                lambda values: not np.isnan(values).all()
            ),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from(["h", "D", "W-SAT", "MS", "ME", "15min"]),
        st.randoms(use_true_random=False),
    )
    @settings(max_examples=40, deadline=None)
    def test_what_pandas_writes_comes_back(self, tmp_path_factory, written, frequency, random):
        frames = [
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": pd.date_range("2024-01-31", periods=len(values), freq=frequency),
                    "y": values,
                }
            )
            for name, values in written.items()
        ]
        rows = pd.concat(frames)
        order = random.sample(range(len(rows)), len(rows))
        path = tmp_path_factory.mktemp("long") / "long.csv"
        rows.iloc[order].to_csv(path, index=False)
        found = {one.id: one for one in read_series(path)}
        assert set(found) == set(written)
        for frame, (name, values) in zip(frames, written.items(), strict=True):
            np.testing.assert_array_equal(found[name].values, values)
            assert found[name].times.tolist() == frame["ds"].tolist()


# Cells that matter to the reader, in tables; dates and numbers that are mostly readable.
CELLS = st.sampled_from(
    """1 2.5 -3 NaN inf x H1 H2 V1 V2 V3 unique_id ds y date year now 1e308 -1e308 1e999 2024-01-01
    2024-01-02 2024-02-01 2024-01-31 2024-02-29 01/02/2024 20240101 999999999999999999
    -999999999999999999 1700-01-01 2261-12-31 9999-01-01 0001-01-01 2024-01-01T00:00:00+02:00
    2024Q1 " "" 1;2 ٣ \0""".split()  # noqa: SIM905
) | st.sampled_from(["", "2024-01-01 00:30", "Mar 2024", "\t", " "])
TABLES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=7).map("\n".join)
DAILY = st.lists(
    st.tuples(st.integers(1, 40), st.integers(-9, 9)).map(
        lambda row: f"2024-01-{row[0]:02d},{row[1]}"
    ),
    max_size=8,
).map("\n".join)


@given(st.one_of(TABLES, DAILY, st.text()).map(str.encode) | st.binary())
@settings(max_examples=400, deadline=None)
@example(b"\xff\xfey\x00\n\x001\x00")
@example(b"unique_id,ds,y\na,1,1\na," + b"9" * 18 + b",2\n")
@example(b"date,y\n1677-09-22,1\n2262-04-10,2\n")
@example(b"unique_id,ds,y\na,-999999999999999999,1\na,999999999999999999,2\n")
@example(b"date,y\n2024-01-01 00:00:00.000000001,1\n2024-01-01,2\n")
def test_any_content_gives_series_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    series = outcome(lambda: read_series(path), DataError)
    if isinstance(series, DataError):
        assert str(series).startswith(f"{path}: ")
        assert len(str(series).splitlines()) == 1
        return
    check_contract(series)
    for one in series:
        future = outcome(lambda one=one: future_times(one, 3), ValueError)
        assert "no dates for 3 time steps after" in str(future) or len(future) == 3


def outcome(call, exception):
    """What ``call`` returns, or the exception it raises."""
    try:
        return call()
    except exception as error:
        return error


class TestSeries:
    def test_needs_a_time_a_value(self):
        times = pd.date_range("2024-01-01", periods=3)
        with pytest.raises(ValueError, match="times: expected shape"):
            Series("a", np.zeros(2), times, "D")
        with pytest.raises(ValueError, match="ticks: expected shape"):
            Series("a", np.zeros(2), ticks=range(3))
        with pytest.raises(ValueError, match=r"values: expected shape \[T\]"):
            Series("a", np.zeros((2, 1)))

    def test_may_be_compared_and_hashed(self):
        one = Series("a", np.zeros(2))
        assert one == one
        assert len({one, Series("a", np.zeros(2))}) == 2


class TestFutureTimes:
    def test_dates_go_on(self):
        times = pd.date_range("2023-12-31", periods=2, freq="ME")
        future = future_times(Series("a", np.zeros(2), times, "ME"), 3)
        assert future.tolist() == [
            pd.Timestamp(d) for d in ("2024-02-29", "2024-03-31", "2024-04-30")
        ]

    def test_ticks_continue(self):
        future = future_times(Series("a", np.zeros(3), ticks=range(1950, 1980, 10)), 2)
        assert future.tolist() == [1980, 1990]

    def test_counting_without_times(self):
        assert future_times(Series("a", np.zeros(3)), 2).tolist() == [4, 5]

    def test_horizon_out_of_range(self):
        with pytest.raises(ValueError, match="horizon: expected a value in"):
            future_times(Series("a", np.zeros(3)), 0)

    def test_dates_without_frequency(self):
        times = pd.date_range("2024-01-01", periods=2)
        with pytest.raises(ValueError, match="series 'a': expected a frequency"):
            future_times(Series("a", np.zeros(2), times), 1)

    def test_dates_beyond_the_calendar(self):
        times = pd.DatetimeIndex(["2261-01-01", "2262-01-01"]).as_unit("ns")
        with pytest.raises(
            ValueError, match="series 'a': no dates for 2 time steps after 2262-01-01"
        ):
            future_times(Series("a", np.zeros(2), times, "12MS"), 2)


@pytest.mark.data
class TestRealFiles:
    @pytest.mark.parametrize(
        ("file", "count", "shortest", "longest", "first", "last", "frequency"),
        [
            ("M4-Hourly-train.csv.gz", 414, 700, 960, "H1", "H414", None),
            ("M4-Hourly-test.csv.gz", 414, 48, 48, "H1", "H414", None),
            ("ETTh1.csv.gz", 7, 17_420, 17_420, "HUFL", "OT", "h"),
            ("exchange_rate.txt.gz", 8, 7_588, 7_588, "column_1", "column_8", None),
            ("taylor.csv", 1, 4_032, 4_032, "Y", "Y", None),
            ("monthly-sunspots.csv", 1, 2_820, 2_820, "Sunspots", "Sunspots", "MS"),
            ("monthly-airline-passengers.csv", 1, 144, 144, "Passengers", "Passengers", "MS"),
        ],
    )
    def test_shapes(self, data_dir, file, count, shortest, longest, first, last, frequency):
        series = read_series(data_dir / "series" / file)
        check_contract(series)
        lengths = [len(one.values) for one in series]
        assert (len(series), min(lengths), max(lengths)) == (count, shortest, longest)
        assert (series[0].id, series[-1].id) == (first, last)
        assert {one.frequency for one in series} == {frequency}
        assert not any(np.isnan(one.values).any() for one in series)

    def test_values_are_those_that_pandas_reads(self, data_dir):
        path = data_dir / "series" / "ETTh1.csv.gz"
        # Python's own parser is exact; that of older pandas is off by an ulp or two.
        table = pd.read_csv(path, index_col="date", dtype=str).map(float)
        series = read_series(path)
        assert [one.id for one in series] == list(table)
        for one in series:
            np.testing.assert_array_equal(one.values, table[one.id])
            assert one.times.strftime("%Y-%m-%d %H:%M:%S").tolist() == table.index.tolist()

    def test_m4_lengths(self, data_dir):
        path = data_dir / "series" / "M4-Hourly-train.csv.gz"
        table = pd.read_csv(path, index_col="V1")
        series = read_series(path)
        assert [one.id for one in series] == list(table.index)
        for one in series:
            np.testing.assert_array_equal(one.values, table.loc[one.id].dropna())


@pytest.mark.parametrize("at", [0, 2, 5, -2])
def test_a_series_is_split_with_its_times(at):
    values, dates = np.arange(5.0), pd.date_range("2001-01-01", periods=5)
    kinds = ({}, {"times": dates, "frequency": "D"}, {"ticks": range(3, 13, 2)})
    for times in kinds:
        parts = Series("a", values, **times).split(at)
        assert [one.id for one in parts] == ["a", "a"]
        assert [one.values.tolist() for one in parts] == [
            values[:at].tolist(),
            values[at:].tolist(),
        ]
        for name in ("times", "ticks"):
            if name in times:
                joined = [list(getattr(one, name)) for one in parts]
                assert joined == [list(times[name])[:at], list(times[name])[at:]]
