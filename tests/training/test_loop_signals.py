"""Signals, faults, and clocks that jump: nothing is lost, and the resumed run is the same."""

import os
import signal
import time

import pytest
from linear_run import (
    At,
    assert_same_state,
    distance,
    interrupt,
    loss_fn,
    run_in,
    same_files,
)

from seqnets.runs import CheckpointStore, checkpoints
from seqnets.training import loop


@pytest.mark.parametrize("k", [3, 8, 20])
def test_stopped_by_a_signal_and_resumed_leaves_the_same_files(tmp_path, straight, k):
    expected, folder = straight
    before = signal.getsignal(signal.SIGINT)
    stopped = run_in(tmp_path, At(k, interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.signal == signal.SIGINT
    assert stopped.snapshot.progress.step == k
    assert CheckpointStore(tmp_path / "checkpoints").newest() == k
    assert not stopped.snapshot.progress.evaluated
    resumed = run_in(tmp_path, resume=True)
    assert resumed.signal is None
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_an_evaluation_and_the_resumed_run_begins_with_it(
    tmp_path, straight, number
):
    expected, folder = straight

    def interrupted(params):
        if not stopped_once:
            stopped_once.append(True)
            os.kill(os.getpid(), number)
            time.sleep(30)
        return distance(params)

    stopped_once = []
    began = time.monotonic()
    stopped = run_in(tmp_path, evaluate=interrupted)
    assert time.monotonic() - began < 20
    assert (stopped.signal, stopped.snapshot.progress.step) == (number, 8)
    assert not stopped.snapshot.progress.evaluated
    assert CheckpointStore(tmp_path / "checkpoints").newest() == 8
    resumed = run_in(tmp_path, resume=True, evaluate=interrupted)
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)


def test_a_signal_while_compiling_takes_no_step(tmp_path, straight):
    expected, folder = straight

    def slow(params, batch, given):
        if not stopped_once:
            stopped_once.append(True)
            interrupt()
            time.sleep(30)
        return loss_fn(params, batch, given)

    stopped_once = []
    stopped = run_in(tmp_path, loss_fn=slow)
    assert (stopped.signal, stopped.snapshot.progress.step) == (signal.SIGINT, 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)


def test_a_signal_while_compiling_a_resumed_run_repeats_no_record(tmp_path, straight):
    """Step 10 has a record, and step 8 an evaluation, which the stopped run must not make again."""
    expected, _ = straight

    def slow(params, batch, given):
        interrupt()
        time.sleep(30)

    for k in (8, 10):
        run_in(tmp_path, resume=k > 8, limits={"max_steps": k})
        before = (tmp_path / "metrics.jsonl").read_bytes()
        stopped = run_in(tmp_path, resume=True, loss_fn=slow)
        assert stopped.snapshot.progress.step == k
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)


def test_a_signal_after_the_last_look_loses_no_step(tmp_path, straight):
    """It comes between looking up and the question whether to go on: at step 7 nothing is due."""
    expected, folder = straight

    with pytest.MonkeyPatch.context() as patch:
        real = loop._Run._look_up

        def look_up(self):
            real(self)
            if self.progress.step == 7:
                self.interruption.signal = signal.SIGTERM

        patch.setattr(loop._Run, "_look_up", look_up)
        assert run_in(tmp_path).snapshot.progress.step == 7
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)


def test_a_jump_of_the_clock_changes_nothing(tmp_path, straight, monkeypatch):
    """Not even in the middle of a checkpoint, where Orbax may take it for a timeout."""
    expected, folder = straight
    real, write, times, tries = time.time, checkpoints.write_snapshot, [], []

    def jumping():
        times.append(1)
        return real() + (-1) ** len(times) * 20

    def counting(path, snapshot, rank):
        tries.append(snapshot.progress.step)
        if tries.count(8) == 1:
            raise TimeoutError("after 2e9 seconds")  # what Orbax makes of a larger jump
        write(path, snapshot, rank)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(checkpoints, "write_snapshot", counting)
    outcome = run_in(tmp_path)
    assert tries.count(8) == 2
    assert_same_state(outcome.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)
    progress = outcome.snapshot.progress
    assert 0 <= progress.training_seconds < 60
    assert 0 <= progress.evaluation_seconds < 60
    assert 0 <= progress.compilation_seconds < 60


def test_an_error_of_saving_ends_the_run(tmp_path, monkeypatch):
    def full(self, snapshot, rank):
        raise OSError("disk full")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.raises(OSError, match="disk full"):
        run_in(tmp_path)
    with pytest.raises(OSError, match="disk full"):  # of the last, too
        run_in(tmp_path, limits={"steps": 4})
