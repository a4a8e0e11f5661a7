"""CSV layouts of series, recognized by header and content.

==================  ==============================================================================
long                a header with ``unique_id, ds, y`` in any order; other columns are ignored
one series per row  M4's layout: identifier, then values; the header ``V1, V2, ...`` (or another
                    numbered one), or none; empty cells at the end of a row end the series
columns with times  a column of times, then one column of numbers per series, named by the header
columns             one column of numbers per series, with or without a header, without times
==================  ==============================================================================

A missing value is an empty cell or NA, NaN, N/A, null, None in any case. A series without a name
gets the name of the file if it is the only one, otherwise ``column_2`` and so on.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqnets.data.cells import Cells, is_missing, is_number, numbers, rows, shown
from seqnets.data.errors import DataError
from seqnets.data.files import decode_utf8, read_bytes
from seqnets.data.times import is_time, parse_times
from seqnets.data.written import LONG, Written, check_identifiers, check_long_names, long_series
from seqnets.typing import Int

__all__ = ["written_series"]

TIME_NAMES = frozenset(
    {"", "ds", "date", "dates", "day", "datetime", "hour", "index", "month", "period", "quarter"}
    | {"step", "t", "time", "timestamp", "week", "year"}
)
"""Lowercase names that make a first column of integers times instead of a series."""

SAMPLE = 100
"""Number of rows from which the layout is recognized."""

MAXIMUM_ROWS = 2**24
MAXIMUM_CELLS = 2**26
"""Files with more lines or commas are rejected."""

Row = tuple[int, list[str]]


@dataclass(frozen=True)
class _Table:
    """A file split into rows: ``names`` is the header, ``sample`` the first of ``rows``."""

    path: str
    names: list[str] | None
    sample: list[Row]
    rows: Iterator[Row]

    @property
    def width(self) -> int:
        return len(self.names if self.names is not None else self.sample[0][1])

    def name(self, column: int) -> str:
        return self.names[column] if self.names is not None else f"column_{column + 1}"

    def place(self, column: int) -> str:
        named = self.names is not None and self.names[column]
        return f"column {shown(self.name(column))}" if named else f"column {column + 1}"


def written_series(path: str, limit: int) -> list[Written]:
    """Read all series of a file of at most ``limit`` bytes, in order of appearance.

    Raises:
      DataError: if the file cannot be read or has none of the layouts.
    """
    table = _open(path, limit)
    if _is_long(table):
        return _long(table)
    if _is_series_a_row(table):
        return _series_a_row(table)
    return _columns(table)


def _open(path: str, limit: int) -> _Table:
    data = read_bytes(path, limit)
    _check_size(path, data)
    text = decode_utf8(path, data)
    source = rows(path, text)
    head = list(itertools.islice(source, SAMPLE + 1))
    names = head.pop(0)[1] if head and _is_header(head[0][1]) else None
    if not head:
        raise DataError(
            f"{path}: expected rows of data, got {'only a header' if names else 'none'}"
        )
    table = _Table(path, names, head, itertools.chain(head, source))
    if names is not None:
        _check_names(table)
    return table


def _check_size(path: str, data: bytes) -> None:
    """Raise if there are too many cells, since each takes far more memory than its bytes."""
    lines = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if lines > MAXIMUM_ROWS:
        raise DataError(f"{path}: expected at most {MAXIMUM_ROWS} lines, got {lines}")
    commas = data.count(b",")
    if commas > MAXIMUM_CELLS:
        raise DataError(f"{path}: expected at most {MAXIMUM_CELLS} commas, got {commas}")


def _is_header(cells: Sequence[str]) -> bool:
    """Whether any cell but the first, which may be an identifier, is not a value."""
    named = cells[1:] if len(cells) > 1 else cells
    return any(not is_number(cell) and not is_missing(cell) for cell in named)


def _check_names(table: _Table) -> None:
    before: set[str] = set()
    for column, name in enumerate(table.names or []):
        if not name and column:
            raise DataError(f"{table.path}: header: column {column + 1} has no name")
        if name in before:
            raise DataError(f"{table.path}: header: two columns are named {shown(name)}")
        before.add(name)


def _is_long(table: _Table) -> bool:
    """Whether the header has ``unique_id``, or something close to it and ``ds`` or ``y``."""
    names = table.names or []
    close = difflib.get_close_matches("unique_id", [name.lower() for name in names], 1, 0.75)
    return LONG[0] in names or bool(close and {"ds", "y"} & set(names))


def _is_series_a_row(table: _Table) -> bool:
    if table.width < 2:
        return False
    if table.names is not None:
        if table.names[0].lower() in TIME_NAMES or not _counts(table.names[1:]):
            return False
        if table.names[0] == "V1":
            return True
    first = [cells[0] for _, cells in table.sample]
    named = [not is_number(cell) and not is_missing(cell) and not is_time(cell) for cell in first]
    return 2 * sum(named) > len(named)


def _counts(names: Sequence[str]) -> bool:
    """Whether the names end in consecutive numbers."""
    ends = [re.search("[0-9]{1,9}$", name) for name in names]
    found = [int(end[0]) for end in ends if end is not None]
    return len(found) == len(names) and found == list(range(found[0], found[0] + len(found)))


def _long(table: _Table) -> list[Written]:
    names = table.names or []
    check_long_names(f"{table.path}: header", names)
    lines, columns = _transposed(table, has_keys=True)
    ids, ds, y = (
        _column(table, lines, columns[i], i) for i in (names.index(name) for name in LONG)
    )
    check_identifiers(ids)
    return long_series(ids.texts, parse_times(ds), numbers(y), lines)


def _series_a_row(table: _Table) -> list[Written]:
    found: dict[str, Written] = {}
    for line, (name, *texts) in table.rows:
        if table.names is not None and len(texts) >= len(table.names):
            raise _wrong_width(table, line, len(texts) + 1)
        if not name or name in found:
            raise DataError(
                f"{table.path}: line {line}: expected a unique identifier in the first "
                f"column, got {shown(name)}"
            )
        values = numbers(_row_cells(table.path, line, texts))
        length = np.max(np.flatnonzero(~np.isnan(values)), initial=-1) + 1
        found[name] = Written(name, values[:length], None, np.full(length, line))
    return list(found.values())


def _row_cells(path: str, line: int, texts: list[str]) -> Cells:
    return Cells(path, texts, lambda i: f"line {line}, column {i + 2}")


def _columns(table: _Table) -> list[Written]:
    timed = _first_is_time(table)
    lines, columns = _transposed(table, has_keys=timed)
    if not timed:
        blank = np.flatnonzero(np.diff(lines) > 1)
        if blank.size:
            raise DataError(
                f"{table.path}: line {lines[blank[0]] + 1}: expected a value, got a blank line; "
                f"write NaN where a value is missing"
            )
    times = parse_times(_column(table, lines, columns[0], 0)) if timed else None
    found = [
        Written(table.name(i), numbers(_column(table, lines, columns[i], i)), times, lines)
        for i in range(int(timed), len(columns))
    ]
    if table.names is None and len(found) == 1:
        return [Written(_stem(table.path), found[0].values, times, lines)]
    return found


def _first_is_time(table: _Table) -> bool:
    """Whether the first of several columns holds times, judged by its name or its cells."""
    if table.width < 2:
        return False
    first = [cells[0] for _, cells in table.sample if cells[0]]
    if table.names is not None and table.names[0].lower() in TIME_NAMES:
        return True
    return bool(first) and (is_time(first[0]) or not any(map(is_number, first)))


def _transposed(
    table: _Table, *, has_keys: bool
) -> tuple[Int[np.ndarray, " n"], list[Sequence[str]]]:
    """Line numbers and columns of the table; with ``has_keys``, rows of empty cells are dropped."""
    kept = [(line, cells) for line, cells in table.rows if any(cells) or not has_keys]
    for line, cells in kept:
        if len(cells) != table.width:
            raise _wrong_width(table, line, len(cells))
    if not kept:
        raise DataError(f"{table.path}: expected rows of data, got only empty ones")
    lines = np.array([line for line, _ in kept], np.int64)
    return lines, list(zip(*(cells for _, cells in kept), strict=True))


def _wrong_width(table: _Table, line: int, width: int) -> DataError:
    like = "the header" if table.names is not None else "the first row"
    return DataError(
        f"{table.path}: line {line}: expected {table.width} columns as in {like}, got {width}"
    )


def _column(
    table: _Table, lines: Int[np.ndarray, " n"], texts: Sequence[str], column: int
) -> Cells:
    return Cells(table.path, texts, lambda i: f"line {lines[i]}, {table.place(column)}")


def _stem(path: str) -> str:
    """The file's name without its suffix, or both suffixes if the last is ``.gz``."""
    name = Path(path).name.removesuffix(".gz")
    return Path(name).stem or name
