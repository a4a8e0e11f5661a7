"""Signals become a note while the context lasts, and act as before afterwards."""

import os
import signal
import threading
import time

import pytest

from seqnets.training import interruption as module
from seqnets.training.interruption import AbandonedError, Interruption

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def known_handlers():
    """A SIGTERM that would be seen, and everything put back whatever the test does."""
    before = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_noted_and_nothing_else_happens(number):
    before = handlers()
    with Interruption() as interruption:
        assert interruption.signal is None
        signal.raise_signal(number)
        assert interruption.signal is number
        assert isinstance(interruption.signal, signal.Signals)
    assert handlers() == before
    assert interruption.signal is number


@pytest.mark.parametrize("first", BOTH)
def test_a_keyboard_interrupt_after_a_note_acts(first):
    before = handlers()
    with Interruption():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert handlers() == before


def test_a_termination_after_a_note_is_noted():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal is signal.SIGTERM


def test_handlers_come_back_after_an_error():
    before = handlers()
    with pytest.raises(ZeroDivisionError), Interruption() as interruption:
        raise ZeroDivisionError
    assert handlers() == before
    assert interruption.signal is None


def test_a_handler_unknown_to_python_becomes_the_default(monkeypatch):
    real, calls = signal.signal, []

    def foreign(number, handler):
        calls.append((number, handler))
        real(number, handler)

    monkeypatch.setattr(signal, "signal", foreign)
    with Interruption():
        pass
    assert calls[2:] == [(number, signal.SIG_DFL) for number in BOTH]


def test_outside_the_main_thread_nothing_is_touched():
    before, seen = handlers(), []

    def work():
        with Interruption() as interruption:
            seen.append((handlers(), interruption.signal))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]
    assert handlers() == before


@pytest.mark.parametrize("number", BOTH)
def test_work_that_may_be_given_up_is(number):
    with Interruption() as interruption:
        with pytest.raises(AbandonedError), interruption.abandonable(pytest.fail):
            signal.raise_signal(number)
        assert interruption.signal is number
        # From now on nothing of the kind is begun, and a signal is a note again.
        with pytest.raises(AbandonedError), interruption.abandonable(pytest.fail):
            pytest.fail("began")
        signal.raise_signal(signal.SIGTERM)


def test_work_that_is_done_is_done():
    with Interruption() as interruption:
        with interruption.abandonable(pytest.fail):
            done = True
        signal.raise_signal(signal.SIGTERM)
    assert done
    assert interruption.signal is signal.SIGTERM


def test_an_error_of_the_work_is_its_own():
    with Interruption() as interruption:
        with pytest.raises(ZeroDivisionError), interruption.abandonable(pytest.fail):
            raise ZeroDivisionError
        signal.raise_signal(signal.SIGTERM)


def test_nothing_is_left_open():
    files, wakeup = len(os.listdir("/proc/self/fd")), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    for number in (None, signal.SIGUSR1, signal.SIGTERM):
        with Interruption():
            if number == signal.SIGUSR1:
                before = signal.signal(number, lambda *_: None)
            if number:
                signal.raise_signal(number)
    signal.signal(signal.SIGUSR1, before)
    assert len(os.listdir("/proc/self/fd")) == files
    assert "signals" not in [thread.name for thread in threading.enumerate()]
    assert signal.set_wakeup_fd(-1) == wakeup


class Held:
    """Stands for the main thread in native code: the watch is told, the handler does not run."""

    def __init__(self, interruption, monkeypatch):
        self.left, self.rescued, self.interruption = [], [], interruption
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        monkeypatch.setattr(module.os, "_exit", self._exit)
        interruption._ringer.send(bytes([signal.SIGTERM]))

    def rescue(self):
        self.rescued.append(threading.current_thread())

    def _exit(self, status):
        self.left.append(status)
        self.interruption._noted.set()  # ends the thread, which would have ended with the process


@pytest.mark.parametrize("fails", [False, True])
def test_where_native_code_does_not_come_back_the_work_is_rescued(monkeypatch, caplog, fails):
    with Interruption() as interruption:
        held = Held(interruption, monkeypatch)

        def rescue():
            held.rescue()
            if fails:
                raise OSError("disk full")

        with interruption.abandonable(rescue):
            until = time.monotonic() + 10
            while not held.left and time.monotonic() < until:
                time.sleep(0.01)
    assert held.left == [143]
    (thread,) = held.rescued
    assert thread is not threading.main_thread()
    assert ("not saved: disk full" in caplog.text) is fails


def test_what_may_not_be_given_up_is_waited_for(monkeypatch):
    with Interruption() as interruption:
        held = Held(interruption, monkeypatch)
        time.sleep(0.3)
        assert held.left == []
        signal.raise_signal(signal.SIGTERM)  # the main thread is back
        with pytest.raises(AbandonedError), interruption.abandonable(held.rescue):
            pytest.fail("began")
        time.sleep(0.2)
    assert held.left == []
    assert held.rescued == []
