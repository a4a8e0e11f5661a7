"""Signals become a note while the context lasts, and act as before afterwards."""

import signal
import threading

import pytest

from seqnets.training.interruption import Interruption

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
