"""Every mistake in a file of series: a DataError of one line that names file and place."""

import re

import pandas as pd
import pytest

from seqnets.data.errors import DataError
from seqnets.data.frames import series_from_frame
from seqnets.data.series import read_series

LONG = "unique_id,ds,y\n"
MONTHS = "date,sales\n2024-01-01,1\n2024-02-01,2\n"

WRONG = {
    "empty": ("", "empty file"),
    "only blank lines": ("\n \n\r\n", "rows of data, got none"),
    "only a header": ("unique_id,ds,y\n", "only a header"),
    "one row, long": (LONG + "a,2024-01-01,1\n", "series 'a': expected at least 2 values, got 1"),
    "one row, columns": ("date,sales\n2024-01-01,1\n", "series 'sales': expected at least 2"),
    "one number": ("5\n", "at least 2 values, got 1"),
    "one value a row": ("V1,V2\nH1,5\n", "series 'H1': expected at least 2 values, got 1"),
    "row without values": ("V1,V2,V3\nH1,,\n", "series 'H1': expected at least 2 values, got 0"),
    "no unique_id": (
        "uniqueid,ds,y\na,1,2\na,2,3\n",
        "without 'unique_id'; did you mean 'uniqueid'",
    ),
    "other case": ("Unique_ID,ds,y\na,1,2\na,2,3\n", "without 'unique_id'"),
    "no y": ("unique_id,ds,value\na,1,2\na,2,3\n", "without 'y'"),
    "no ds": ("unique_id,dss,y\na,1,2\na,2,3\n", "without 'ds'; did you mean 'dss'"),
    "word for a value": (
        LONG + "a,1,2\na,2,two\n",
        "line 3, column 'y': expected a number, got 'two'",
    ),
    "two separators": (
        "1\n2\n3;4\n",
        "line 3, column 1: expected a number, got '3;4'; columns are",
    ),
    "all semicolons": (
        "date;y\n2024-01;1\n2024-02;2\n",
        "got '2024-01;1'; columns are separated by",
    ),
    "thousands": ('date,y\n2024-01,"1,000"\n2024-02,2\n', "line 2, column 'y': expected a number"),
    "underscore": ("y\n1_000\n2\n", "line 2, column 'y': expected a number, got '1_000'"),
    "infinite": (
        LONG + "a,1,inf\na,2,1\n",
        "line 2, column 'y': expected a finite number, got 'inf'",
    ),
    "beyond float64": ("1\n1e999\n", "line 2, column 1: expected a finite number, got '1e999'"),
    "beyond calculation": (
        LONG + "a,1,1\na,2,-1.7e308\n",
        "line 3, column 'y': expected a number within ±1e+150, got '-1.7e308'",
    ),
    "NaN everywhere": ("y\nNaN\nNaN\nNaN\n", "series 'y': expected a value, got 3 missing ones"),
    "one column NaN": ("a,b\n1.5,NaN\n2.5,\n", "series 'b': expected a value, got 2 missing ones"),
    "blank line inside": ("1\n2\n\n4\n", "line 3: expected a value, got a blank line; write NaN"),
    "ragged": ("a,b\n1.5,2\n1.5,2,3\n", "line 3: expected 2 columns as in the header, got 3"),
    "ragged, no header": ("1,2\n3\n", "line 2: expected 2 columns as in the first row, got 1"),
    "long row": (
        "V1,V2,V3\nH1,1,2\nH2,1,2,3\n",
        "line 3: expected 3 columns as in the header, got 4",
    ),
    "identifier twice": ("H1,1,2\nH2,1,2\nH1,1,2\n", "line 3: expected a unique identifier"),
    "no identifier": ("V1,V2,V3\nH1,1,2\n,3,4\n", "line 3: expected a unique identifier"),
    "empty unique_id": (
        LONG + "a,1,2\n,2,3\n",
        "line 3, column 'unique_id': expected an identifier",
    ),
    "word in a row": ("V1,V2,V3\nH1,1,x\n", "line 2, column 3: expected a number, got 'x'"),
    "no time": (LONG + "a,,2\na,2,3\n", "line 2, column 'ds': expected a date"),
    "no such day": (MONTHS + "2024-02-30,3\n", "line 4, column 'date': expected a date"),
    "word for a time": (
        "day,HUFL,HULL\nMonday,1,2\nTuesday,3,4\n",
        "line 2, column 'day': expected",
    ),
    "word, counting columns": (
        "day,x1,x2\nMonday,1,2\nTuesday,3,4\n",
        "line 2, column 'day': expected a date",
    ),
    "today": ("date,y\ntoday,1\nnow,2\n", "line 2, column 'date': expected a date"),
    "date among integers": (
        LONG + "a,1,2\na,2,3\na,2024-01-01,3\n",
        "line 4, column 'ds': expected",
    ),
    "integer among dates": (
        LONG + "a,2024-01-01,2\na,7,3\n",
        "line 3, column 'ds': expected a date",
    ),
    "decimal time": ("year,y\n1949.04,1\n1949.12,2\n", "line 2, column 'year': expected a date"),
    "day or month": (
        "date,y\n01/02/2024,1\n02/02/2024,2\n",
        "an unambiguous date (write year-month",
    ),
    "year 3000": ("date,y\n3000-01-01,1\n3000-01-02,2\n", "line 2, column 'date': expected a date"),
    "time twice": (MONTHS + "2024-01-01,3\n", "2024-01-01 00:00:00 occurs twice, on lines 2 and 4"),
    "step twice": (
        LONG + "a,5,1\nb,5,1\na,6,1\na,5,2\n",
        "the time 5 occurs twice, on lines 2 and 5",
    ),
    "no grid": (
        "date,y\n2024-01-01 00:00:00,1\n2024-01-01 01:00:00,1\n2024-01-01 02:00:01,2\n",
        "series 'y': expected times on a regular grid",
    ),
    "a gap of years": (
        "date,y\n2024-01-01 00:00,1\n2024-01-01 01:00,1\n2030-01-01 02:00,2\n",
        "2030-01-01 02:00:00 follows 2024-01-01 01:00:00",
    ),
    "steps apart": (LONG + "a,0,1\na,1,1\na,1000000000000,2\n", "expected times on a regular grid"),
    "four centuries": (
        "date,y\n1700-01-01,1\n2200-01-02,2\n",
        "expected times less than 292 years apart",
    ),
    "column without name": ("date,y,\n2024-01,1,2\n2024-02,1,2\n", "header: column 3 has no name"),
    "column twice": ("date,y,y\n2024-01,1,2\n", "header: two columns are named 'y'"),
    "open quotation": ('date,y\n2024-01,"1\n2024-02,2\n', "line 3: not CSV"),
    "stray quotation": ('y\n"1"2\n3\n', "line 2: not CSV"),
    "endless field": ("y\n" + "1" * 200_000 + "\n2\n", "line 2: not CSV: field larger"),
    "prose": (
        "It was a dark\nand stormy night\n",
        "line 2, column 'It was a dark': expected a number",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line_with_its_place(name, tmp_path):
    content, told = WRONG[name]
    path = tmp_path / "wrong.csv"
    path.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(DataError) as caught:
        read_series(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert told in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300


def table(content):
    """The rows of a CSV file in long form as a frame of texts."""
    head, *lines = content.strip("\n").split("\n")
    return pd.DataFrame([line.split(",") for line in lines], columns=head.split(","))


@pytest.mark.parametrize(
    "name", [name for name, (text, _) in WRONG.items() if text.startswith(LONG)]
)
def test_a_wrong_frame_is_told_like_its_file(name):
    content, told = WRONG[name]
    frame = table(content)
    with pytest.raises(DataError) as caught:
        series_from_frame(frame)
    message = str(caught.value)
    assert message.startswith("frame: ")
    # The header is line 1, and the first row is row 0.
    told = re.sub(
        r"(?<=line )\d|(?<=lines )\d|(?<=and )\d", lambda found: str(int(found[0]) - 2), told
    ).replace("line", "row")
    assert told in message or (told == "only a header" and "got none" in message)


def test_a_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)
