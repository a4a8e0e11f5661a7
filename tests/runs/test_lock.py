"""One training at a time in a run directory, whoever comes and however the last one ended."""

import errno
import fcntl
import os
import shutil
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


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def unsupported(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = RunLock()
    lock.acquire(tmp_path)
    assert "does not support locks" in caplog.text
    lock.release()


def test_a_file_that_its_owner_removes_is_no_lock(tmp_path, monkeypatch):
    """Between opening the file and locking it the owner may end, and a third process begin."""
    owner, third, flock = RunLock(), RunLock(), fcntl.flock
    owner.acquire(tmp_path)

    def late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        owner.release()
        third.acquire(tmp_path)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ValueError, match="is being trained by"):
        RunLock().acquire(tmp_path)
    third.release()


def test_a_folder_that_is_gone_is_unlocked(tmp_path):
    lock = RunLock()
    (tmp_path / "run").mkdir()
    lock.acquire(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file in its place")
    lock.release()


def test_a_check_writes_nothing(tmp_path):
    RunLock().check(tmp_path)
    RunLock().check(tmp_path / "none")
    assert not list(tmp_path.iterdir())
    lock = RunLock()
    lock.acquire(tmp_path)
    with pytest.raises(ValueError, match=f"is being trained by process {os.getpid()}"):
        RunLock().check(tmp_path)
    lock.release()
    RunLock().check(tmp_path)
