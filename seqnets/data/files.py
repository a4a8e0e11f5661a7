"""Bytes in and out: plain or gzip by content, strict UTF-8, replacement in one move."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path

from seqnets.data.errors import DataError
from seqnets.files import write_atomically

__all__ = ["MAXIMUM_BYTES", "decode_utf8", "read_bytes", "write_file"]

MAXIMUM_BYTES = 2**31
"""Files of more than 2 GiB, counted after decompression, are refused rather than read."""

_PART = 2**20
_GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: str | os.PathLike[str], limit: int = MAXIMUM_BYTES) -> bytes:
    """Read a whole file, decompressing it if its first two bytes say gzip, whatever its name.

    Args:
      path: the file.
      limit: the largest content accepted, in bytes after decompression.

    Raises:
      DataError: if the file cannot be read, is empty, is damaged gzip or exceeds ``limit``.
    """
    try:
        with open(path, "rb") as file:
            data = _content(file, limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip data: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from error
    if not data:
        raise DataError(f"{path}: expected some content, got an empty file")
    if len(data) > limit:
        raise DataError(f"{path}: expected at most {limit} bytes of content, got more")
    return data


def _content(file: io.BufferedReader, limit: int) -> bytes:
    """Return at most ``limit + 1`` bytes of the (decompressed) content."""
    if file.peek(2)[:2] == _GZIP_MAGIC:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _read(unpacked, limit + 1)
    return _read(file, limit + 1)


def _read(file: io.BufferedIOBase, limit: int) -> bytes:
    """Read at most ``limit`` bytes part by part: `read` at once would allocate them all before."""
    content = io.BytesIO()
    while part := file.read(min(limit - content.tell(), _PART)):
        content.write(part)
    return content.getvalue()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def decode_utf8(path: str | os.PathLike[str], data: bytes) -> str:
    """Decode strictly; ``path`` is for the message.

    Raises:
      DataError: naming the first byte that is not UTF-8, its offset (from 0) and line (from 1).
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: expected UTF-8 text, got byte 0x{data[error.start]:02x} "
            f"at offset {error.start} ({error.reason})"
        ) from error


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
      DataError: if the folder does not exist or the file cannot be written.
    """
    if not Path(path).parent.is_dir():
        raise DataError(f"{path}: cannot be written: there is no folder {Path(path).parent}")
    try:
        write_atomically(path, data)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {_reason(error)}") from error
