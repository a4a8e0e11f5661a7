import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnets.data.cells import LARGEST, Cells, is_missing, is_number, numbers, rows
from seqnets.data.errors import DataError


def cells(*texts):
    return Cells("f.csv", texts, lambda i: f"line {i + 1}")


@given(st.lists(st.floats(-LARGEST, LARGEST)))
def test_numbers_are_read_exactly(values):
    np.testing.assert_array_equal(numbers(cells(*map(repr, values))), values)


@pytest.mark.parametrize("text", ["", "NA", "nan", "NaN", "N/A", "null", "None", "NULL"])
def test_missing_values(text):
    assert is_missing(text)
    assert not is_number(text)
    np.testing.assert_array_equal(numbers(cells("1", text, "3")), [1, np.nan, 3])


@pytest.mark.parametrize("text", ["x", "1,5", "1_0", "0x10", "1 2", "-", "?", "nan1", "²"])
def test_what_is_no_number(text):
    assert not is_number(text)
    with pytest.raises(DataError, match=r"f.csv: line 3: expected a number, got "):
        numbers(cells("1", "", text, "y"))


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400"])
def test_infinite_numbers(text):
    assert is_number(text)
    with pytest.raises(DataError, match=r"f.csv: line 1: expected a finite number, got "):
        numbers(cells(text))


@pytest.mark.parametrize("text", ["1.7e308", "-1.7e308", "1.01e150"])
def test_numbers_too_large_to_calculate_with(text):
    message = r"f.csv: line 2: expected a number within ±1e\+150, got "
    with pytest.raises(DataError, match=message):
        numbers(cells("", text, "x"))


def test_a_long_cell_is_shown_shortened():
    assert len(str(cells("x" * 10_000).wrong(0, "less"))) < 100


def test_a_cell_with_line_ends_is_shown_in_one_line():
    assert "\n" not in str(cells("a\nb").wrong(0, "less"))


def test_rows_have_line_numbers_and_stripped_cells():
    text = 'a, b\r\n\n  \n"c,\nd",\n""\n'
    assert list(rows("f", text)) == [(1, ["a", "b"]), (5, ["c,\nd", ""]), (6, [""])]


def test_rows_by_any_line_end():
    assert [cells for _, cells in rows("f", "1\r2\n3\r\n4")] == [["1"], ["2"], ["3"], ["4"]]
