"""SHA-256 of the content of data, which does not change if a file is moved or recompressed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from seqnets.data.errors import DataError
from seqnets.data.series import Series

__all__ = ["check_same_data", "checksum_of_series", "checksum_of_text"]

PIECE = 2**20  # characters encoded at once


def checksum_of_text(*parts: str) -> str:
    """SHA-256 of texts, in order.

    Args:
      *parts: the texts; the result depends on where one ends and the next begins.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\n".encode())
        for start in range(0, len(part), PIECE):
            digest.update(part[start : start + PIECE].encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def checksum_of_series(series: Sequence[Series]) -> str:
    """SHA-256 of the names, times, and values of series, bit for bit.

    Args:
      series: the series, in order. The name of a single series does not count, since it may be just
        the name of its file.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for one in series:
        about = [one.id if len(series) > 1 else "", len(one.values), one.frequency, one.ticks]
        digest.update(f"{about}\n".encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(one.values, "<f8").data)
        if one.times is not None:
            digest.update(np.ascontiguousarray(one.times.asi8, "<i8").data)
    return digest.hexdigest()


def check_same_data(record: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise an error unless the data have the recorded checksums, in the same order.

    Args:
      record: checksums at the beginning of the run, by name; names only serve the message.
      now: current checksums, by name.

    Raises:
      DataError: if the checksums differ; the message names the data and both checksums.
    """
    before, after = list(record.items()), list(now.items())
    for i in range(max(len(before), len(after))):
        old_name, old = before[i] if i < len(before) else ("", "none")
        new_name, new = after[i] if i < len(after) else ("", "none")
        if old != new:
            raise DataError(
                f"{new_name or old_name}: has changed since the run began: expected SHA-256 {old}, "
                f"got {new}"
            )
