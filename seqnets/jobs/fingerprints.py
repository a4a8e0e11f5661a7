"""What data a run was trained on, by SHA-256: a resumed run must find the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from seqnets.data.errors import DataError
from seqnets.files import read_json, write_atomically

__all__ = ["check_data", "sums_of_files", "sums_of_text"]

MAXIMUM_BYTES = 2**24  # of a record


def sums_of_files(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """SHA-256 of each file's bytes, by its name as given.

    Take it before the file is read: if it changes in between, a resumed run is refused, where
    otherwise it would go on with other data.

    Raises:
      DataError: if a file cannot be read.
    """
    sums = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                sums[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return sums


def sums_of_text(name: str, *parts: str) -> dict[str, str]:
    """SHA-256 of a text that is in no file of its own, under a name."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}\n".encode() + data)
    return {name: digest.hexdigest()}


def check_data(record: Path, sums: Mapping[str, str]) -> None:
    """Compare the data with a record of it; where there is no record, make one.

    Args:
      record: a JSON file of sums by name.
      sums: those of now.

    Raises:
      DataError: if the record cannot be read, or a sum is another, naming both.
    """
    if not record.exists():
        write_atomically(record, f"{json.dumps(dict(sums), indent=2)}\n".encode())
        return
    try:
        before = dict(read_json(record, MAXIMUM_BYTES))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{record}: cannot be read: {error}") from error
    for name in [*before, *sums]:
        expected, got = before.get(name, "none"), sums.get(name, "none")
        if expected != got:
            raise DataError(
                f"{name}: has changed since the run began: expected SHA-256 {expected}, got {got}"
            )
