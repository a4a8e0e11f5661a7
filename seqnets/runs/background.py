"""Work in a background thread, one task at a time, without losing errors."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """Runs one task at a time in a thread. The interpreter does not exit before it is done."""

    def __init__(self) -> None:
        """Start without a task."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Wait for the previous task and start a new one.

        Args:
          work: the task; it must not share data with the caller that either of them changes.

        Raises:
          BaseException: what the previous task raised; the new one is then not started.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="background")
        self._thread.start()

    def wait(self) -> None:
        """Wait until no task is running.

        Raises:
          BaseException: what the last task raised; raised only once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
