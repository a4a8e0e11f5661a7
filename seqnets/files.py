"""Files that are written whole or not at all, and read only as far as memory should go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["read_at_most", "read_json", "write_atomically"]


def read_at_most(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes; of a larger one nothing is kept.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is larger.
    """
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"expected at most {limit} bytes, got more")
    return data


def read_json(path: str | os.PathLike[str], limit: int) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is larger, or not JSON that Python reads.
    """
    try:
        return json.loads(read_at_most(path, limit))
    except RecursionError as error:
        raise ValueError("expected JSON, got one that is nested too deep") from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at every moment, whatever fails, it holds the old bytes or the new.

    The bytes go to a new temporary file in the same folder, which then takes the place of ``path``;
    a link that is there is replaced, not followed.

    Raises:
      OSError: if the folder does not exist or the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
