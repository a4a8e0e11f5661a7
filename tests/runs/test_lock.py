"""One training at a time in a run directory, whoever comes and however the last one ended."""

import os
import signal
import subprocess
import sys

import pytest

from seqnets.runs.lock import RunLock

HOLDER = """
import sys, time
from pathlib import Path
from seqnets.runs.lock import RunLock
lock = RunLock()
lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_the_second_is_told_who_holds_it(tmp_path):
    first, second = RunLock(), RunLock()
    first.acquire(tmp_path)
    before = (tmp_path / ".lock").read_bytes()
    with pytest.raises(ValueError, match=rf"being trained by process {os.getpid()} on .* since"):
        second.acquire(tmp_path)
    second.release()  # it holds nothing
    assert (tmp_path / ".lock").read_bytes() == before
    first.release()
    assert not list(tmp_path.iterdir())
    second.acquire(tmp_path)
    second.release()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        lock = RunLock()
        with pytest.raises(ValueError, match=f"process {holder.pid} on"):
            lock.acquire(tmp_path)
        holder.send_signal(signal.SIGKILL)
    lock.acquire(tmp_path)
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}"])
def test_an_owner_that_cannot_be_read_is_somebody(tmp_path, content):
    first = RunLock()
    first.acquire(tmp_path)
    (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(ValueError, match="is being trained by another process"):
        RunLock().acquire(tmp_path)
    first.release()


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        RunLock().acquire(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "kept"
