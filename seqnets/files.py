"""Reading files of limited size, and writing files atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "check_regular",
    "descriptor_of",
    "is_special",
    "read_at_most",
    "read_json",
    "write_atomically",
    "write_output",
]

LINKS = 40  # maximum number of links in a path, as on Linux


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise an error unless a path is a regular file, since reading others may never end.

    Raises:
      OSError: if the file does not exist, or is a directory, a device, a FIFO, or a socket.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        message = f"expected a regular file, got {_kind(mode)}"
        raise OSError(errno.EINVAL, message, os.fspath(path))


def read_at_most(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
      OSError: if the file cannot be read or is not a regular file.
      ValueError: if it is larger.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"expected at most {limit} bytes, got more")
    return data


def read_json(path: str | os.PathLike[str], limit: int) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
      OSError: if the file cannot be read or is not a regular file.
      ValueError: if it is larger, or not valid JSON.
    """
    try:
        return json.loads(read_at_most(path, limit))
    except RecursionError as error:
        raise ValueError("expected JSON, got one that is nested too deeply") from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any time, whatever fails, it has either the old or the new content.

    The bytes are written to a temporary file in the same folder, which then replaces ``path`` and
    gets the permissions of an existing regular file. An existing link is replaced, not followed,
    since run directories may be untrusted. For files named by the user, see `write_output`.

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
            with contextlib.suppress(OSError):  # a new file, or no permissions
                before = os.lstat(path).st_mode
                if stat.S_ISREG(before):
                    partial.chmod(stat.S_IMODE(before))
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_output(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file named by the user, of any kind.

    A regular or new file is written by `write_atomically`, and a link is followed. Devices, FIFOs,
    and open descriptors such as ``/dev/stdout`` are written to directly.

    Raises:
      OSError: if the file cannot be written.
    """
    descriptor = descriptor_of(path)
    if descriptor is not None:
        sys.stdout.flush()  # printed text comes first
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
    elif is_special(path):
        with open(path, "wb") as file:
            file.write(data)
    else:
        write_atomically(os.path.realpath(path), data)


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The open file descriptor that a path names: 1 for ``/dev/stdout``, 3 for ``/dev/fd/3``.

    Args:
      path: path of a descriptor, or a link to one.

    Returns:
      The number of the descriptor, or None for any other path.
    """
    descriptors = os.path.realpath("/dev/fd")
    for folder, name in _steps(os.fspath(path)):
        if name.isdecimal() and os.path.realpath(folder) == descriptors:
            return int(name)
    return None


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Folder and name of a path, of its link target, and so on."""
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        yield folder, name
        try:
            path = os.path.join(folder, os.readlink(path))
        except (OSError, ValueError):  # not a link, or not a valid name
            return


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a device, FIFO, socket, or open descriptor, which must not be replaced."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # it does not exist, or is not a valid name
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for holds, name in kinds if holds(mode)), "a device")
