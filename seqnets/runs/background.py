"""Work in a thread of its own, beside the loop: one piece at a time, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """One piece of work at a time. The interpreter does not exit before it is done."""

    def __init__(self) -> None:
        """Nothing to do yet."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work when the one before is done.

        Args:
          work: what to do; it shares nothing with the caller that either of them changes.

        Raises:
          BaseException: what the piece of work before raised; then nothing is begun.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="background")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being done.

        Raises:
          BaseException: what the last piece of work raised, once.
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
