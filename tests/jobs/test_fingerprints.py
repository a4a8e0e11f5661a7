"""Sums of data: of the very bytes, kept in a file, and told apart by name."""

import hashlib
import json

import pytest

from seqnets.data.errors import DataError
from seqnets.jobs.fingerprints import check_data, sums_of_files, sums_of_text


def test_sums_are_those_of_the_bytes(tmp_path, rng):
    files = [tmp_path / "a.txt", tmp_path / "b.gz"]
    for file in files:
        file.write_bytes(rng.bytes(3_000_000))
    expected = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert sums_of_files(files) == expected
    assert sums_of_files([]) == {}


@pytest.mark.parametrize("name", ["none.txt", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        sums_of_files([tmp_path / name])


def test_a_text_is_told_from_another_and_from_another_cut():
    texts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("abd",)]
    sums = [sums_of_text("it", *parts)["it"] for parts in texts]
    assert len(set(sums)) == len(texts)
    assert all(len(digest) == 64 for digest in sums)
    assert sums_of_text("it", "\ud800 is no UTF-8") != sums_of_text("it", "?")


def test_the_first_time_sums_are_written_and_then_compared(tmp_path):
    record = tmp_path / "data.json"
    sums = {"a": "1", "b": "2"}
    check_data(record, sums)
    assert json.loads(record.read_text()) == sums
    check_data(record, dict(reversed(sums.items())))
    message = "b: has changed since the run began: expected SHA-256 2, got 3"
    with pytest.raises(DataError, match=message):
        check_data(record, {"a": "1", "b": "3"})
    with pytest.raises(DataError, match=r"b: .* expected SHA-256 2, got none"):
        check_data(record, {"a": "1"})
    with pytest.raises(DataError, match=r"c: .* expected SHA-256 none, got 4"):
        check_data(record, {**sums, "c": "4"})
    assert json.loads(record.read_text()) == sums


@pytest.mark.parametrize("content", ["{", "[1]", "7"])
def test_a_record_that_cannot_be_read(tmp_path, content):
    record = tmp_path / "data.json"
    record.write_text(content)
    with pytest.raises(DataError, match=r"data\.json: cannot be read"):
        check_data(record, {"a": "1"})
