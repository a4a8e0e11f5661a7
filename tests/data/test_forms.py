import time

import numpy as np
import pandas as pd
import pytest

from seqnets.data import cells, forms
from seqnets.data.errors import DataError
from seqnets.data.forms import written_series

NAN = np.nan
LIMIT = 10**6


@pytest.fixture
def written(tmp_path):
    def read(content, name="sales.csv", limit=LIMIT):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8", newline="")
        return written_series(str(path), limit)

    return read


def summary(series):
    """Name to values, and whether there are dates (D), integers (I) or no times (-)."""
    kinds = {pd.DatetimeIndex: "D", np.ndarray: "I", type(None): "-"}
    return {
        one.id: (kinds[type(one.times)], [None if np.isnan(v) else v for v in one.values])
        for one in series
    }


FORMS = {
    "long": (
        "unique_id,ds,y\nb,2024-01,1\na,2024-01,3\nb,2024-02,2\n",
        {"b": ("D", [1, 2]), "a": ("D", [3])},
    ),
    "long, other order, more columns": (
        "price,y,ds,unique_id\nx,1,1,b\ny,,2,b\n",
        {"b": ("I", [1, None])},
    ),
    "long, empty rows": ("unique_id,ds,y\na,1,5\n,,\na,2,6\n\n", {"a": ("I", [5, 6])}),
    "one series a row": (
        '"V1","V2","V3","V4"\n"H1","1","2","3"\n"H2","4",,\n"H3","5",,"6"\n"H4",7,NaN,NA\n',
        {
            "H1": ("-", [1, 2, 3]),
            "H2": ("-", [4]),
            "H3": ("-", [5, None, 6]),
            "H4": ("-", [7]),
        },
    ),
    "a row, short rows": ("V1,V2,V3\nH1,1\nH2,1,2\n", {"H1": ("-", [1]), "H2": ("-", [1, 2])}),
    "a row, numbers for names": (
        "V1,V2,V3\n1,10,11\n2,20,21\n",
        {"1": ("-", [10, 11]), "2": ("-", [20, 21])},
    ),
    "a row, no header": (
        "H1,1,2,3\nH2,4,5\nH3,1,2,3,4\n",
        {"H1": ("-", [1, 2, 3]), "H2": ("-", [4, 5]), "H3": ("-", [1, 2, 3, 4])},
    ),
    "a row, counting header": (
        "name,t0,t1\nA,1,2\nB,3,4\n",
        {"A": ("-", [1, 2]), "B": ("-", [3, 4])},
    ),
    "dates and columns": (
        "date,HUFL,OT\n2024-01-01 00:00,1,2\n2024-01-01 01:00,NaN,4\n",
        {"HUFL": ("D", [1, None]), "OT": ("D", [2, 4])},
    ),
    "dates under any name": ("when,y\n2024-01-01,1\n2024-01-02,2\n", {"y": ("D", [1, 2])}),
    "dates and counting columns": (
        "when,x1,x2\n2024-01-01,1,2\n2024-01-02,3,4\n",
        {"x1": ("D", [1, 3]), "x2": ("D", [2, 4])},
    ),
    "dates without header": ("2024-01-01,1\n2024-01-02,2\n", {"sales": ("D", [1, 2])}),
    "eight digits without header": ("20240101,1\n20240102,2\n", {"sales": ("D", [1, 2])}),
    "dates, two columns, no header": (
        "2024-01,1,2\n2024-02,3,4\n",
        {"column_2": ("D", [1, 3]), "column_3": ("D", [2, 4])},
    ),
    "Prophet's form": ("ds,y\n2024-01-01,1\n2024-01-02,2\n", {"y": ("D", [1, 2])}),
    "ds, y and another": (
        "ds,y,x\n2024-01-01,1,2\n2024-01-02,2,3\n",
        {"y": ("D", [1, 2]), "x": ("D", [2, 3])},
    ),
    "years": ("Year,lynx\n1821,269\n1822,321\n", {"lynx": ("I", [269, 321])}),
    "an unnamed index": (",y\n0,1\n1,2\n", {"y": ("I", [1, 2])}),
    "first dates missing": ("date,y\n,\n2024-01,1\n2024-02,2\n", {"y": ("D", [1, 2])}),
    "columns": (
        "1,2,3\n4,,6\n",
        {"column_1": ("-", [1, 4]), "column_2": ("-", [2, None]), "column_3": ("-", [3, 6])},
    ),
    "columns with header": ("a,b\n1,2\n3,4\n", {"a": ("-", [1, 3]), "b": ("-", [2, 4])}),
    "one column": ('"Y"\n1\nNA\n""\n3\n', {"Y": ("-", [1, None, None, 3])}),
    "one column, no header": ("\n1\n2.5\n-3e2\n\n\n", {"sales": ("-", [1, 2.5, -300])}),
    "one column, missing first": ("NaN\n2\n", {"sales": ("-", [None, 2])}),
    "byte order mark": ("\ufeffunique_id,ds,y\na,1,5\n", {"a": ("I", [5])}),
    "old line ends": ("y\r1\r2\r", {"y": ("-", [1, 2])}),
    "spaces": ("unique_id, ds, y\n a , 1 , 5 \n", {"a": ("I", [5])}),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name, written):
    content, expected = FORMS[name]
    assert summary(written(content)) == expected


@pytest.mark.parametrize("name", FORMS)
def test_series_are_in_order_of_appearance(name, written):
    content, expected = FORMS[name]
    assert [one.id for one in written(content)] == list(expected)


def test_times_and_lines_follow_the_values(written):
    series = written("unique_id,ds,y\nb,3,1\na,9,3\n\nb,1,2\n")
    assert [one.times.tolist() for one in series] == [[3, 1], [9]]
    assert [one.places.tolist() for one in series] == [[2, 5], [3]]


def test_one_bad_date_does_not_turn_columns_into_rows(written):
    rows = "".join(f"2024-01-{day:02d},1,2\n" for day in range(1, 29))
    with pytest.raises(DataError, match=r"line 1, column 1: expected a date .*got 'soon'|line 30"):
        written("soon,1,2\n" + rows)
    with pytest.raises(DataError, match=r"line 29, column 1: expected a date .*got 'soon'"):
        written(rows + "soon,1,2\n")


def test_a_form_beyond_the_sampled_rows(written):
    many = "".join(f"{i}.5,{i}\n" for i in range(300))
    assert [len(one.values) for one in written(many)] == [300, 300]
    with pytest.raises(DataError, match="line 301, column 2: expected a number, got 'x'"):
        written(many + "1,x\n")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sales.csv", "sales"),
        ("sales.csv.gz", "sales"),
        ("a.b.txt", "a.b"),
        ("sales", "sales"),
        (".csv", ".csv"),
    ],
)
def test_a_lone_series_is_called_by_the_file(written, file, name):
    assert written("1\n2\n", file)[0].id == name


def test_the_limit(written):
    with pytest.raises(DataError, match="expected at most 3 bytes"):
        written("1\n2\n", limit=3)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("MAXIMUM_ROWS", "1\n2\r\n3\r4\n", "at most 3 lines, got 4"),
        ("MAXIMUM_CELLS", "1,2\n,,\n", "at most 2 commas, got 3"),
    ],
)
def test_cells_are_counted_before_they_are_cut(written, monkeypatch, name, content, told):
    limit = int(told[8])
    monkeypatch.setattr(forms, name, limit)
    monkeypatch.setattr(forms, "rows", None)
    with pytest.raises(DataError, match=told):
        written(content)
    monkeypatch.undo()
    monkeypatch.setattr(forms, name, limit + 1)
    written("1\n2\n3\n4\n")


def test_rows_of_too_many_cells(written, monkeypatch):
    monkeypatch.setattr(cells, "MAXIMUM_COLUMNS", 3)
    assert len(written("1,2,3\n4,5,6\n")) == 3
    with pytest.raises(DataError, match="line 2: expected at most 3 columns, got 4"):
        written("1,2,3\n4,5,6,7\n")


def test_names_of_many_columns_are_checked_in_one_pass(written):
    names = [f"n{i}x" for i in range(20_000)]
    begun = time.process_time()
    assert len(written(",".join(names) + "\n" + ",".join(["1"] * 20_000))) == 20_000
    # 0.2 s were measured, and 2 s where every name was compared with all before.
    assert time.process_time() - begun < 1


def test_long_names_do_not_make_long_messages(written):
    long = "x" * 100_000
    for content in (f"{long},{long}\n1,2\n", f"a,{long}\n1,x\n", f"unique_id,{long}\n1,2\n"):
        with pytest.raises(DataError) as caught:
            written(content)
        assert len(str(caught.value)) < 500
