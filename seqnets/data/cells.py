"""Rows, cells, and numbers of CSV text; every error names its place."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from seqnets.data.errors import DataError
from seqnets.typing import Float

__all__ = ["LARGEST", "Cells", "is_missing", "is_number", "numbers", "rows", "shown"]

MAXIMUM_COLUMNS = 2**20
"""Rows with more cells are rejected."""

LARGEST = 1e150
"""Numbers with a larger absolute value are rejected: sums of their squares would overflow."""

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})
"""Cells that denote a missing value, in any case."""


@dataclass(frozen=True)
class Cells:
    """Cells of a column or part of a row, with their places for error messages."""

    path: str
    texts: Sequence[str]
    where: Callable[[int], str]
    """Maps the index of a cell to its place, such as ``"line 3, column 'y'"``."""

    def wrong(self, i: int, expected: str) -> DataError:
        """Return the exception for cell ``i``."""
        got = self.texts[i]
        hint = "; columns are separated by commas" if ";" in got or "\t" in got else ""
        return DataError(
            f"{self.path}: {self.where(i)}: expected {expected}, got {shown(got)}{hint}"
        )


def shown(text: str) -> str:
    """``text`` in quotation marks, shortened to 40 characters."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def rows(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number (from 1) and the stripped cells of each row that is not blank.

    Raises:
      DataError: if a quotation mark is not closed, a field is longer than 128 Ki characters, or a
        row has more than 1 Mi cells.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if len(cells) > MAXIMUM_COLUMNS:
                raise DataError(
                    f"{path}: line {reader.line_num}: expected at most {MAXIMUM_COLUMNS} columns, "
                    f"got {len(cells)}"
                )
            blank = not cells or (len(cells) == 1 and cells[0].isspace())
            if not blank:
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV: {error}") from error


def is_number(cell: str) -> bool:
    """Return whether ``cell`` is a number, finite or not, and not a missing value."""
    return not is_missing(cell) and not math.isnan(_number(cell))


def numbers(cells: Cells) -> Float[np.ndarray, " n"]:
    """Parse cells to float64, with NaN for missing values.

    Raises:
      DataError: at the first cell that is neither a missing value nor a number whose absolute value
        is at most `LARGEST`.
    """
    values = np.array([_number(cell) for cell in cells.texts], np.float64)
    for i in np.flatnonzero(~(np.abs(values) <= LARGEST)).tolist():
        if not is_missing(cells.texts[i]):
            raise cells.wrong(i, _expected(values[i]))
    return values


def _expected(value: float) -> str:
    if math.isnan(value):
        return "a number"
    return "a finite number" if math.isinf(value) else f"a number within ±{LARGEST:g}"


def is_missing(cell: str) -> bool:
    """Return whether ``cell`` denotes a missing value."""
    return cell.lower() in MISSING


def _number(cell: str) -> float:
    """``cell`` as a float, NaN if it is not a number; underscores in numbers are not accepted."""
    try:
        return float(cell) if "_" not in cell else math.nan
    except ValueError:
        return math.nan
