"""One piece of work at a time beside the main thread, and its error once."""

import threading

import pytest

from seqnets.runs.background import Background


def fail():
    raise OSError("disk full")


def test_work_is_done_elsewhere_and_waited_for():
    background, go, seen = Background(), threading.Event(), []

    def work():
        assert go.wait(10)
        seen.append(threading.current_thread())

    background.wait()  # for nothing
    background.start(work)
    assert seen == []
    go.set()
    background.start(work)
    background.wait()
    assert len(seen) == 2
    assert threading.main_thread() not in seen
    assert "background" not in [thread.name for thread in threading.enumerate()]


def test_an_error_is_raised_once_and_keeps_the_next_from_beginning():
    background, seen = Background(), []
    background.start(fail)
    with pytest.raises(OSError, match="disk full"):
        background.start(lambda: seen.append(1))
    background.wait()
    assert seen == []
    background.start(fail)
    with pytest.raises(OSError, match="disk full"):
        background.wait()
    background.wait()
