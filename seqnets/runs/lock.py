"""A lock that allows only one training run at a time in a run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

__all__ = ["RunLock"]

NAME = ".lock"
MAXIMUM_BYTES = 2**12
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


class RunLock:
    """A lock on a run directory, which the kernel releases when the process ends for any reason."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._descriptor = -1

    def check(self, folder: Path) -> None:
        """Raise ValueError if another process holds the lock of a folder; nothing is written."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.close(_locked(folder, os.O_RDONLY))

    def acquire(self, folder: Path) -> None:
        """Lock a folder.

        Raises:
          ValueError: if another process holds the lock; the message names it.
          OSError: if the folder cannot be written.
        """
        path = folder / NAME
        while not _is_at(path, descriptor := _locked(folder, os.O_RDWR | os.O_CREAT)):
            os.close(descriptor)  # its previous holder has removed it
        self._path, self._descriptor = path, descriptor
        about = {"host": socket.gethostname(), "process": os.getpid(), "since": time.ctime()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(about)}\n".encode(), 0)

    def release(self) -> None:
        """Unlock the folder, if it is locked."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):  # the whole folder may be gone
            self._path.unlink()
        os.close(self._descriptor)
        self._path = None


def _locked(folder: Path, flags: int) -> int:
    """Open and lock the lock file of a folder, and return its descriptor."""
    descriptor = os.open(folder / NAME, flags | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(descriptor)
        os.close(descriptor)
        raise ValueError(f"{folder}: is being trained by {owner}") from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            os.close(descriptor)
            raise
        logger.warning(
            "%s: this file system does not support locks; train one run at a time", folder
        )
    return descriptor


def _owner(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, MAXIMUM_BYTES, 0))
        return f"process {about['process']} on {about['host']} since {about['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
