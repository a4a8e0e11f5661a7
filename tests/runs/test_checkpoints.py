"""The store: what is kept, what is ignored, and what a fault may not cost."""

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.runs import CheckpointError, Checkpointing, CheckpointStore, checkpoints
from seqnets.training import Progress, Snapshot, TrainState, Weights


def state_at(step):
    """A state whose values tell its step."""
    params = {"w": np.full((64, 3), step, np.float32)}
    return TrainState(np.array(step, np.int32), params, {}, (), (), jax.random.key(step))


def snapshot_at(step):
    return Snapshot(state_at(step), Progress(step=step))


LIKE = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state_at(0)))


def save(store, *steps, metric=None):
    for step in steps:
        store.save(snapshot_at(step), metric)


def kept(store):
    return sorted(store._finished())


def assert_holds(store, step):
    state, progress = store.restore(LIKE, step)
    assert progress.step == int(state.step) == step
    np.testing.assert_array_equal(state.params["w"], state_at(step).params["w"])


def assert_best(store, step):
    params = store.restore_best_weights(Weights(LIKE.params)).params
    np.testing.assert_array_equal(params["w"], state_at(step).params["w"])


def damage(tmp_path, step, *, part="arrays"):
    """Flip a bit in the middle of every file: which of them Orbax reads is its own affair."""
    for file in (tmp_path / str(step) / part).rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)


def test_an_empty_store(tmp_path):
    store = CheckpointStore(tmp_path / "none")
    assert store.newest() is None
    assert store.best() is None
    assert store.restore_newest(LIKE) is None
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        store.restore_best_weights(Weights(LIKE.params))
    with pytest.raises(CheckpointError, match="no checkpoint of step 3; found: none"):
        store.restore(LIKE, 3)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    store = CheckpointStore(tmp_path, keep=keep)
    for step in (0, 5, 90, 100):
        save(store, step)
        assert store.newest() == step
    assert kept(store) == [0, 5, 90, 100][-keep:]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, kept(store)))
    for step in kept(store):
        assert_holds(store, step)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; found: "):
        store.restore(LIKE, 7)


def test_the_best_is_kept_besides(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    metrics = [3.0, 1.0, 2.0, None, float("nan"), 1.0, -float("inf"), 0.5, 4.0]
    best, there = [], []
    for step, metric in enumerate(metrics):
        save(store, step, metric=metric)
        best.append(store.best())
        there.append(kept(store))
    assert best == [0, 1, 1, 1, 1, 1, 1, 7, 7]
    assert there == [[0], [1], [1, 2], [1, 3], [1, 4], [1, 5], [1, 6], [7], [7, 8]]
    assert_best(store, 7)
    assert_holds(store, 7)


def test_a_negative_metric_is_better(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1, metric=-2.0)
    save(store, 2, metric=0.0)
    assert store.best() == 1


def test_without_metrics_the_newest_serves(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3, 4)
    assert store.best() is None
    assert_best(store, 4)


def test_a_step_saved_again_is_replaced(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3)
    state = state_at(8)._replace(step=np.array(3, np.int32))
    store.save(Snapshot(state, Progress(step=3)), 0.5)
    assert store.best() == store.newest() == 3
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(store.restore(LIKE, 3)[0].params["w"], state_at(8).params["w"])
    save(store, 3)
    assert_holds(CheckpointStore(tmp_path), 3)


def test_what_an_abandoned_attempt_left_goes(tmp_path):
    store = CheckpointStore(tmp_path, keep=3)
    save(store, 10, 20, 30, metric=1.0)
    save(store, 15)
    assert kept(store) == [10, 15]
    assert store.newest() == 15


def test_unfinished_folders_are_ignored_and_cleared(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3)
    for name in ("9.orbax-checkpoint-tmp", "9.orbax-checkpoint-tmp-17", "2.removed", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    assert store.newest() == 3
    assert (tmp_path / "9.orbax-checkpoint-tmp").exists()  # reading clears nothing
    save(store, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "9", "notes"]


@pytest.mark.parametrize("moment", ["before writing", "when renaming", "before removing"])
def test_a_fault_while_saving_costs_nothing(tmp_path, monkeypatch, moment):
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 3, metric=0.5)
    save(store, 4)

    def fault(*args, **kwargs):
        raise OSError("disk full")

    target, name = {
        "before writing": (checkpoints, "write_snapshot"),
        "when renaming": (os, "rename"),
        "before removing": (CheckpointStore, "_remove"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, fault)
        with pytest.raises(OSError, match="disk full"):
            save(store, 5)
    assert store.best() == 3
    assert store.newest() == (5 if moment == "before removing" else 4)
    for step in (3, 4):
        assert_holds(store, step)
    save(store, 6)
    assert kept(store) == [3, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "6"]


def test_a_removal_cut_short_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 3)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *args, **kwargs: None)
    save(store, 4)
    assert kept(store) == [4]
    assert (tmp_path / "3.removed").exists()


def test_a_damaged_one_is_not_the_best_and_does_not_hinder(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 3, metric=0.1)
    for file in (tmp_path / "3" / "header").iterdir():
        file.write_text("{")
    assert store.best() is None
    with pytest.raises(CheckpointError, match="damaged"):
        store.restore(LIKE, 3)
    save(store, 4, metric=0.2)
    assert kept(store) == [4]


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep: expected"):
        CheckpointStore(tmp_path, keep=0)


def test_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(CheckpointStore("run/checkpoints"), 1)
    assert_holds(CheckpointStore(tmp_path / "run" / "checkpoints"), 1)


@pytest.mark.parametrize("part", ["arrays", "header"])
def test_the_newest_that_is_whole_is_gone_back_to(tmp_path, caplog, part):
    store = CheckpointStore(tmp_path, keep=3)
    save(store, 3, 6, 9)
    damage(tmp_path, 6)
    damage(tmp_path, 9, part=part)
    state, progress = store.restore_newest(LIKE)
    assert progress.step == int(state.step) == 3
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == [str(tmp_path / "9"), str(tmp_path / "6")]
    assert all("damaged" in line and line.endswith("continuing from step 3") for line in lines)
    assert not any("\n" in line for line in lines)
    # They are in nobody's way now, and were not thrown away.
    assert store.newest() == 3
    save(store, 6)
    assert kept(store) == [3, 6]
    assert_holds(store, 6)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["3", "6", "6.damaged", "9.damaged"]
    damage(tmp_path, 6)
    store.restore_newest(LIKE)
    assert kept(store) == [3]


def test_a_truncated_one_is_gone_back_from(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3, 6)
    for file in (tmp_path / "6" / "arrays").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            os.truncate(file, file.stat().st_size // 2)
    assert store.restore_newest(LIKE).progress.step == 3


def test_where_all_are_damaged_nothing_is_renamed(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3, 6)
    damage(tmp_path, 3)
    damage(tmp_path, 6)
    with pytest.raises(CheckpointError, match="6: is damaged"):
        store.restore_newest(LIKE)
    assert kept(store) == [3, 6]


def test_one_of_another_model_is_not_gone_back_from(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 3)
    state = state_at(6)._replace(params={"w": np.zeros(4)})
    store.save(Snapshot(state, Progress(step=6)), None)
    with pytest.raises(CheckpointError, match="a different model"):
        store.restore_newest(LIKE)
    assert kept(store) == [3, 6]


def test_times_of_files_mean_nothing(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 3, 6)
    os.utime(tmp_path / "6", (0, 0))
    os.utime(tmp_path / "3", (2**32, 2**32))
    assert store.newest() == 6
    save(store, 9)
    assert kept(store) == [6, 9]


@pytest.mark.parametrize("part", ["arrays", "header"])
def test_in_place_of_a_damaged_best_the_newest_serves(tmp_path, caplog, part):
    store = CheckpointStore(tmp_path)
    save(store, 3, metric=0.1)
    save(store, 6, metric=0.3)
    save(store, 9, metric=0.2)
    assert_best(store, 3)
    damage(tmp_path, 3, part=part)
    assert_best(store, 9)
    (record,) = caplog.records
    assert record.getMessage().endswith("using checkpoint 9")
    damage(tmp_path, 6)
    damage(tmp_path, 9)
    with pytest.raises(CheckpointError, match="is damaged"):
        store.restore_best_weights(Weights(LIKE.params))


def test_what_cannot_be_written_is_an_error_in_the_systems_words(tmp_path, monkeypatch, caplog):
    """Whatever Orbax makes of it: here of a limit on the size of files, told as ENOSPC is."""
    store = CheckpointStore(tmp_path)
    save(store, 3)

    def full(*args):
        (tmp_path / "6.orbax-checkpoint-tmp").mkdir()
        raise ValueError("OUT_OF_RANGE: Error writing\nmany lines [os_error_code='28']")

    monkeypatch.setattr(checkpoints, "write_snapshot", full)
    with pytest.raises(OSError, match=r"6: cannot be written: No space left on device$"):
        save(store, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]  # the half is not left lying
    assert not caplog.records


def hooked(tmp_path, monkeypatch, write):
    """A hook whose store writes in some other way, and what it was told to write."""
    told = []

    def save(snapshot, rank):
        told.append((int(snapshot.state.step), rank))
        write(snapshot.progress.step)

    store = CheckpointStore(tmp_path)
    monkeypatch.setattr(store, "save", save)
    return Checkpointing(store), told


def on_checkpoint(hook, step, rank=None):
    hook.on_checkpoint(snapshot_at(step), rank)


def test_the_hook_saves_beside_the_loop_one_at_a_time(tmp_path, monkeypatch):
    go, running = threading.Event(), []

    def write(step):
        running.append(step)
        assert len(running) == 1
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(10)
        running.remove(step)

    hook, told = hooked(tmp_path, monkeypatch, write)
    on_checkpoint(hook, 3)  # comes back at once, though nothing has been written
    assert not go.is_set()
    go.set()
    on_checkpoint(hook, 6, 0.5)
    hook.wait()
    assert told == [(3, None), (6, 0.5)]
    assert running == []
    assert "background" not in [thread.name for thread in threading.enumerate()]


def test_an_error_of_the_hook_comes_with_the_next_call_once(tmp_path, monkeypatch, caplog):
    def write(step):
        raise OSError(f"disk full at {step}")

    hook, told = hooked(tmp_path, monkeypatch, write)
    on_checkpoint(hook, 3)
    with pytest.raises(OSError, match="disk full at 3"):
        on_checkpoint(hook, 6)
    assert told == [(3, None)]
    hook.wait()
    on_checkpoint(hook, 9)
    with pytest.raises(OSError, match="disk full at 9"):
        hook.wait()
    on_checkpoint(hook, 12)
    hook.on_end()  # there is another error under way: this one is told, not raised
    assert [record.getMessage() for record in caplog.records] == ["disk full at 12"]
    hook.on_end()
    assert len(caplog.records) == 1


def test_the_hook_saves_with_the_rank(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    hook = Checkpointing(store)
    on_checkpoint(hook, 1, 0.5)
    on_checkpoint(hook, 2)
    hook.wait()
    assert kept(store) == [1, 2]
    assert store.best() == 1


SAVER = """
import sys
from pathlib import Path
import jax, numpy as np
from seqnets.runs import CheckpointStore
from seqnets.training import Progress, Snapshot, TrainState

store = CheckpointStore(sys.argv[1], keep=1)
for step in range(int(sys.argv[2]), 10**6):
    params = {"w": np.full((64, 3), step, np.float32)}
    state = TrainState(np.array(step, np.int32), params, {}, (), (), jax.random.key(step))
    store.save(Snapshot(state, Progress(step=step)), 1.0 / (step % 7 + 1))
    print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_while_saving(tmp_path, rng):
    """kill -9, five times: the newest finished checkpoint and the best can be read."""
    store = CheckpointStore(tmp_path / "store", keep=1)
    first = 1
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(store.directory), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with writer:
            done = [int(writer.stdout.readline()) for _ in range(3)][-1]
            time.sleep(rng.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            done = [done, *map(int, writer.stdout.read().split())][-1]
        # The last that was told to be finished, or one that was, but not told.
        assert store.newest() in (done, done + 1)
        assert_holds(store, store.newest())
        assert_holds(store, store.best())
        assert 1 <= len(kept(store)) <= 3
        first = store.newest() + 1
