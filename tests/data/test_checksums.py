"""Checksums of data: the content counts, and not the name of a file."""

import gzip

import pytest

from seqnets.data.checksums import check_same_data, checksum_of_series, checksum_of_text
from seqnets.data.errors import DataError
from seqnets.data.series import read_series

VALUES = "value\n" + "".join(f"{k}.5\n" for k in range(12))


def checksum(path):
    return checksum_of_series(read_series(path))


def test_a_single_series_may_be_moved_renamed_and_compressed(tmp_path):
    (tmp_path / "sales.csv").write_text(VALUES)
    (tmp_path / "other.csv").write_text(VALUES)
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(VALUES.encode()))
    (tmp_path / "changed.csv").write_text(VALUES.replace("3.5", "3.25"))
    want = checksum(tmp_path / "sales.csv")
    assert checksum(tmp_path / "other.csv") == want
    assert checksum(tmp_path / "packed.csv.gz") == want
    assert checksum(tmp_path / "changed.csv") != want


def test_the_names_of_several_series_count(tmp_path):
    (tmp_path / "one.csv").write_text("a,1,2,3\nb,4,5,6\n")
    (tmp_path / "two.csv").write_text("a,1,2,3\nc,4,5,6\n")
    assert checksum(tmp_path / "one.csv") != checksum(tmp_path / "two.csv")


def test_how_a_text_is_cut_counts():
    assert checksum_of_text("ab", "c") != checksum_of_text("a", "bc")
    assert checksum_of_text("ab") == checksum_of_text("ab")


def test_names_are_hints():
    check_same_data({"here": "1", "there": "2"}, {"elsewhere": "1", "there": "2"})
    with pytest.raises(DataError, match="there: has changed since the run began: expected SHA-256"):
        check_same_data({"here": "1", "there": "2"}, {"here": "1", "there": "3"})
    with pytest.raises(DataError, match="got none"):
        check_same_data({"here": "1", "there": "2"}, {"here": "1"})
