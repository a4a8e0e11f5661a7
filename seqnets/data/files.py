"""Read and write users' files: plain or gzip (detected by content), strict UTF-8."""

from __future__ import annotations

import gzip
import io
import os
import zlib

from seqnets.data.encodings import likely_encoding
from seqnets.data.errors import DataError
from seqnets.files import check_regular, descriptor_of, write_output

__all__ = [
    "MAXIMUM_BYTES",
    "STANDARD_INPUT",
    "check_output",
    "decode_utf8",
    "read_bytes",
    "write_file",
]

MAXIMUM_BYTES = 2**31
"""Files larger than 2 GiB after decompression are rejected."""

STANDARD_INPUT = "-"
"""Path that denotes standard input."""

_PART = 2**20
_GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: str | os.PathLike[str], limit: int = MAXIMUM_BYTES) -> bytes:
    """Read a whole file, decompressing it if its first two bytes are those of gzip.

    Args:
      path: a regular file or a link to one; ``-`` for standard input; or an open file descriptor,
        as a shell passes for ``<(command)``.
      limit: maximum size in bytes after decompression.

    Raises:
      DataError: if the file cannot be read, is empty, is damaged gzip, or exceeds ``limit``; or if
        it is a folder, a device, or a FIFO, which may never end.
    """
    try:
        with _open(path) as file:
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


def _open(path: str | os.PathLike[str]) -> io.BufferedReader:
    descriptor = 0 if os.fspath(path) == STANDARD_INPUT else descriptor_of(path)
    if descriptor is not None:
        return open(descriptor, "rb", closefd=False)
    check_regular(path)
    return open(path, "rb")


def _content(file: io.BufferedReader, limit: int) -> bytes:
    """Return at most ``limit + 1`` bytes of the (decompressed) content."""
    if file.peek(2)[:2] == _GZIP_MAGIC:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _read(unpacked, limit + 1)
    return _read(file, limit + 1)


def _read(file: io.BufferedIOBase, limit: int) -> bytes:
    """Read at most ``limit`` bytes in parts; one `read` would allocate ``limit`` bytes at once."""
    content = io.BytesIO()
    while part := file.read(min(limit - content.tell(), _PART)):
        content.write(part)
    return content.getvalue()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def decode_utf8(path: str | os.PathLike[str], data: bytes) -> str:
    """Decode UTF-8 strictly and remove a byte order mark; ``path`` is for the message.

    Raises:
      DataError: if the data are not UTF-8; the message names the first invalid byte, its offset
        (from 0), its line (from 1), and the likely encoding. Text in UTF-16 that happens to be
        valid UTF-8 with zero bytes is rejected, too.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = _conversion(likely_encoding(data, error.start))
        raise DataError(
            f"{path}: line {line}: expected UTF-8 text, got byte 0x{data[error.start]:02x} "
            f"at offset {error.start} ({error.reason}){hint}"
        ) from error
    if b"\0" in data[:_PART] and (encoding := likely_encoding(data)):
        raise DataError(f"{path}: expected UTF-8 text, got zero bytes{_conversion(encoding)}")
    return text.removeprefix("\N{BYTE ORDER MARK}")


def _conversion(encoding: str | None) -> str:
    """A hint for converting another encoding."""
    if encoding is None:
        return ""
    return f"; it looks like {encoding}: convert it with iconv -f {encoding} -t UTF-8"


def check_output(name: str, path: str | os.PathLike[str]) -> None:
    """Raise early, before any work is done, if a file certainly cannot be written.

    Args:
      name: beginning of the message: the name of the argument, or the path itself.
      path: the file.

    Raises:
      DataError: if ``path`` is a folder, or its parent folder does not exist.
    """
    text = os.fspath(path)
    if not text or text.endswith(os.sep) or os.path.isdir(text):
        raise DataError(f"{name}: cannot be written: expected the name of a file, got {text!r}")
    folder = os.path.dirname(text) or os.curdir
    if not os.path.isdir(folder):
        raise DataError(f"{name}: cannot be written: there is no folder {folder}")


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file at a path chosen by the user; see `seqnets.files.write_output`.

    Raises:
      DataError: if the folder does not exist or the file cannot be written.
    """
    check_output(os.fspath(path), path)
    try:
        write_output(path, data)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"{path}: cannot be written: {_reason(error)}") from error
