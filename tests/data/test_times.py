import numpy as np
import pandas as pd
import pytest

from seqnets.data.cells import Cells
from seqnets.data.errors import DataError
from seqnets.data.times import is_time, parse_times


def parsed(*texts):
    return parse_times(Cells("f.csv", texts, lambda i: f"line {i + 1}"))


DATES = {
    "2024-03-04": "2024-03-04",
    "2024-03": "2024-03-01",
    "2024/03/04": "2024-03-04",
    "2024-3-4": "2024-03-04",
    "20240304": "2024-03-04",
    "2024-03-04 05:06": "2024-03-04 05:06",
    "2024-03-04T05:06:07.25": "2024-03-04 05:06:07.25",
    "2024-03-04T05:06:07Z": "2024-03-04 05:06:07",
    "2024-03-04 05:06+02:00": "2024-03-04 03:06",
    "2024Q3": "2024-07-01",
    "2024-Q1": "2024-01-01",
    "2024 q4": "2024-10-01",
    "03/14/2024": "2024-03-14",
    "14/03/2024": "2024-03-14",
    "03/14/24": "2024-03-14",
    "14.03.2024": "2024-03-14",
    "04.03.2024": "2024-03-04",
    "14-03-2024": "2024-03-14",
    "3/14/2024 5:06": "2024-03-14 05:06",
    "14/03/2024 05:06:07": "2024-03-14 05:06:07",
    "14-Mar-2024": "2024-03-14",
    "4 March 2024": "2024-03-04",
    "Mar 4, 2024": "2024-03-04",
    "March 2024": "2024-03-01",
    "Mar-24": "2024-03-01",
    "2024 Mar": "2024-03-01",
    "03/2024": "2024-03-01",
    "1749-01": "1749-01-01",
}


@pytest.mark.parametrize("text", DATES)
def test_dates(text):
    assert is_time(text)
    times = parsed(text, text)
    assert times.dtype == np.dtype("datetime64[ns]")
    assert times.tolist() == [pd.Timestamp(DATES[text])] * 2


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "today", "NaT", "nan", "x", "5", "1949", "12.5", "1e5", "24:00", "H1"),
        *("2024-13-01", "2024-02-30", "20241301", "2024Q5", "3000-01-01", "2024-03-04 25:00"),
        "٢٠٢٤-٠٣-٠٤",
    ],
)
def test_what_is_no_date(text):
    assert not is_time(text)


def test_integers():
    times = parsed("3", "-1", "+7", "1950")
    assert times.dtype == np.int64
    assert times.tolist() == [3, -1, 7, 1950]


def test_eight_digits_are_dates_only_if_all_are():
    assert parsed("20240228", "20240301")[1] == pd.Timestamp("2024-03-01")
    assert parsed("20240228", "20240230").tolist() == [20240228, 20240230]


def test_one_day_tells_the_order_of_all():
    assert parsed("01/02/2024", "13/02/2024")[0] == pd.Timestamp("2024-02-01")
    assert parsed("01/02/2024", "01/13/2024")[0] == pd.Timestamp("2024-01-02")
    assert parsed("01/01/2024", "02/02/2024")[1] == pd.Timestamp("2024-02-02")  # same either way
    with pytest.raises(DataError, match=r"line 1: expected an unambiguous date \(write year-month"):
        parsed("01/02/2024", "02/02/2024")


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (["2024-01-01", "2024-01-02", "soon", "later"], 3),
        (["2024-01-01", "2024-01-02", "", "later"], 3),
        (["1", "2", "2024-01-01"], 3),
        (["2024-01-01", "3"], 2),
        (["13/02/2024", "14/02/2024", "02/15/2024", "x"], 3),
        (["20240101", "2024-01-02"], 2),
        (["x", "2024-01-01"], 1),
        (["2024-01-01"] * 50 + ["1.5"], 51),
        (["9" * 19, "1"], 1),
    ],
)
def test_the_first_cell_that_does_not_fit_is_blamed(texts, line):
    with pytest.raises(DataError, match=rf"f.csv: line {line}: expected a date such as .* integer"):
        parsed(*texts)
