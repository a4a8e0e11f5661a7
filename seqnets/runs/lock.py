"""One training at a time in a run directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

__all__ = ["RunLock"]

NAME = ".lock"
MAXIMUM_BYTES = 2**12


class RunLock:
    """A lock on a run directory, held by the kernel for as long as its process lives.

    However a process ends, the kernel releases its lock, and the next one takes it over.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._descriptor = -1

    def acquire(self, folder: Path) -> None:
        """Lock a folder.

        Raises:
          ValueError: if another process holds the lock, naming it.
          OSError: if the folder cannot be written.
        """
        path = folder / NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _owner(descriptor)
                os.close(descriptor)
                raise ValueError(f"{folder}: is being trained by {owner}") from None
            if _is_at(path, descriptor):
                break
            os.close(descriptor)  # its last holder removed it meanwhile
        self._path, self._descriptor = path, descriptor
        about = {"host": socket.gethostname(), "process": os.getpid(), "since": time.ctime()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(about)}\n".encode(), 0)

    def release(self) -> None:
        """Unlock the folder, if it is locked."""
        if self._path is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._path = None


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
