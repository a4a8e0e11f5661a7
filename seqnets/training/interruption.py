"""Ctrl-C and SIGTERM as requests: the loop finishes its step, saves, and returns."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

__all__ = ["AbandonedError", "Interruption"]

PATIENCE = 2.0  # seconds to wait for native code; schedulers often send SIGKILL after about 10

logger = logging.getLogger(__name__)


class AbandonedError(Exception):
    """A signal arrived during work that could be abandoned."""


class Interruption:
    """Context that records SIGINT and SIGTERM in ``signal`` instead of acting on them at once.

    A SIGINT after a recorded signal raises KeyboardInterrupt. Outside the main thread, where
    Python does not allow signal handlers, nothing is recorded.

    Python runs a handler only between two bytecode instructions. If native code does not return,
    as in a long compilation, a watcher thread still sees SIGTERM: it calls ``rescue`` and ends the
    process with exit status 143 (128 + SIGTERM).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._lock = threading.RLock()
        self._noted = threading.Event()
        self._abandonable = False
        self._rescue: Callable[[], None] | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._bell, bell = socket.socketpair()
            bell.setblocking(False)
            self._ringer = bell
            self._bell_before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
            self._watcher.start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            # None means a handler that was not set from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._bell_before)
        self._noted.set()
        self._ringer.close()
        self._watcher.join()
        self._bell.close()

    @contextlib.contextmanager
    def abandonable(self, rescue: Callable[[], None] | None = None) -> Iterator[None]:
        """Context of work without side effects: a signal in it raises `AbandonedError`.

        Args:
          rescue: called in another thread before SIGTERM ends the process, if native code in this
            context does not return within two seconds; None waits for the native code.

        Raises:
          AbandonedError: if a signal was recorded before, or arrives.
        """
        if self.signal is not None:
            raise AbandonedError
        try:
            with self._lock:
                self._abandonable, self._rescue = True, rescue
            yield
        finally:
            with self._lock:
                self._abandonable, self._rescue = False, None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        with self._lock:  # blocks forever if the watcher thread is rescuing
            self.signal = signal.Signals(number)
            self._noted.set()
            if self._abandonable:
                self._abandonable, self._rescue = False, None
                raise AbandonedError

    def _watch(self) -> None:
        """Wait for SIGTERM; if the main thread does not record it in time, act in its place."""
        while number := self._bell.recv(1):
            if number[0] == signal.SIGTERM:
                break
        else:
            return
        while not self._noted.wait(PATIENCE):
            with self._lock:
                if self.signal is None and self._rescue is not None:
                    self._leave(self._rescue)

    @staticmethod
    def _leave(rescue: Callable[[], None]) -> None:
        try:
            rescue()
            logger.warning("stopped by SIGTERM, saved; continue with --resume")
        except BaseException as error:
            logger.error("stopped by SIGTERM, not saved: %s", error)
        finally:
            os._exit(128 + signal.SIGTERM)
