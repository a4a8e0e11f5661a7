"""Where runs are kept: what a directory demands on resume, and what memory keeps."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.data import DataError
from seqnets.runs import (
    CheckpointError,
    DirectoryStore,
    Manifest,
    MemoryStore,
    RunDirectory,
    save_weights,
)
from seqnets.runs.lock import RunLock
from seqnets.training import Progress, Snapshot, TrainState, Weights


def state_at(step):
    params = {"w": np.full(3, step, np.float32)}
    variables = {"ema": np.full(3, step / 2, np.float32)}
    return TrainState(np.array(step, np.int32), params, {}, variables, (), jax.random.key(0))


LIKE = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state_at(0)))
WEIGHTS = Weights(LIKE.params, LIKE.variables)


def begin(store, *, resume=False, checksums=None, config="x = 1\n", check=lambda file: None):
    manifest = Manifest(config, checksums or {"a.txt": "1" * 64}, {"tokenizer.json": "{}"})
    try:
        return store.begin(manifest, LIKE, check, resume=resume)
    finally:
        store.end()


def save(store, *steps, rank=None):
    (hook,) = [
        hook
        for hook in store.hooks(Progress())
        if type(hook).on_checkpoint.__module__ in ("seqnets.runs.checkpoints", "seqnets.runs.store")
    ]
    for step in steps:
        hook.on_checkpoint(Snapshot(state_at(step), Progress(step=step)), rank)
    hook.wait()


def test_a_directory_begins_and_is_resumed(tmp_path):
    store = DirectoryStore(tmp_path / "run")
    assert begin(store) is None
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["config.toml", "data.json", "tokenizer.json"]
    save(store, 3, 6)
    found = begin(DirectoryStore(tmp_path / "run"), resume=True, config="x = 2\n")
    assert found.progress.step == 6
    assert (tmp_path / "run" / "config.toml").read_text().startswith("x = 2\n")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        begin(DirectoryStore(tmp_path / "run"))


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_that_is_being_trained_in_is_left_alone(tmp_path):
    first = DirectoryStore(tmp_path / "run")
    first.begin(SAVED, LIKE, lambda file: None, resume=False)
    save(first, 3)
    (tmp_path / "run" / ".config.toml.123.partial").write_text("being written")
    before = files_of(tmp_path)
    for other in (
        lambda: begin(DirectoryStore(tmp_path / "run"), resume=True),
        lambda: begin(DirectoryStore(tmp_path / "run")),
        lambda: saved(tmp_path / "run"),
    ):
        with pytest.raises(ValueError, match=f"is being trained by process {os.getpid()} on"):
            other()
        assert files_of(tmp_path) == before
    first.end()
    begin(DirectoryStore(tmp_path / "run"), resume=True, checksums=dict(SAVED.checksums))
    assert not list(tmp_path.rglob(".*"))  # half a file is gone, and so is the lock


def test_no_lock_is_left_where_there_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    changed = tmp_path.stat().st_mtime_ns
    for resume in (True, False):
        with pytest.raises(ValueError, match="expected"):
            begin(DirectoryStore(tmp_path), resume=resume)
    assert tmp_path.stat().st_mtime_ns == changed


def test_of_two_that_begin_at_once_one_does(tmp_path, monkeypatch):
    """The second finds an empty folder, and when it has the lock, what the first made of it."""
    acquire = RunLock.acquire

    def late(lock, folder):
        monkeypatch.setattr(RunLock, "acquire", acquire)
        begin(DirectoryStore(tmp_path), config="x = 1\n")
        acquire(lock, folder)

    monkeypatch.setattr(RunLock, "acquire", late)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        begin(DirectoryStore(tmp_path), config="x = 2\n")
    assert (tmp_path / "config.toml").read_text().startswith("x = 1\n")


def test_weights_are_saved_where_a_run_was_killed_at_its_very_start(tmp_path):
    for left in (".lock", ".config.toml.123.partial"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / left).write_text("")
        saved(tmp_path / "run")
        assert DirectoryStore(tmp_path / "run").best_weights(WEIGHTS).params["w"][0] == 7
        shutil.rmtree(tmp_path / "run")


def test_moved_data_is_the_same_data_and_other_data_is_not(tmp_path):
    begin(DirectoryStore(tmp_path), checksums={"a.txt": "1" * 64, "b.txt": "2" * 64})
    moved = {"elsewhere/a.gz": "1" * 64, "b.txt": "2" * 64}
    begin(DirectoryStore(tmp_path), resume=True, checksums=moved)
    assert json.loads((tmp_path / "data.json").read_text()) == moved
    for other in (
        {"a.txt": "1" * 64, "b.txt": "3" * 64},
        {"b.txt": "2" * 64, "a.txt": "1" * 64},
        {"a.txt": "1" * 64},
    ):
        with pytest.raises(DataError, match="has changed since the run began: expected SHA-256"):
            begin(DirectoryStore(tmp_path), resume=True, checksums=other)
    assert json.loads((tmp_path / "data.json").read_text()) == moved


def test_another_configuration_is_refused_before_anything_is_written(tmp_path):
    def refuse(file):
        assert file.read_text().startswith("x = 1\n")
        raise ValueError("another x")

    begin(DirectoryStore(tmp_path))
    with pytest.raises(ValueError, match="another x"):
        begin(DirectoryStore(tmp_path), resume=True, config="x = 2\n", check=refuse)
    assert (tmp_path / "config.toml").read_text().startswith("x = 1\n")


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path, caplog):
    begin(DirectoryStore(tmp_path))
    assert begin(DirectoryStore(tmp_path), resume=True) is None
    assert "there is no checkpoint yet" in caplog.text
    DirectoryStore(tmp_path).write_result({"steps": 3})
    with pytest.raises(ValueError, match="there is no checkpoint to resume from"):
        begin(DirectoryStore(tmp_path), resume=True)


@pytest.mark.parametrize(
    "ranks",
    [
        (0.5, 0.1, 0.3),
        (None, None, None),
        (0.1, None, 0.1),
        (math.nan, 0.3, 0.1),
        (-math.inf, 0.3, 0.5),
        (math.inf, math.nan, None),
    ],
)
def test_memory_keeps_what_a_directory_keeps(tmp_path, ranks):
    memory, directory = MemoryStore(), DirectoryStore(tmp_path)
    begin(directory)
    assert begin(memory) is None
    for store in (memory, directory):
        for step, rank in zip((2, 4, 6), ranks, strict=True):
            save(store, step, rank=rank)
    assert memory.best_step() == directory.best_step()
    chex.assert_trees_all_equal(memory.best_weights(WEIGHTS), directory.best_weights(WEIGHTS))


def test_memory_records_and_forgets_what_was_rolled_back():
    store = MemoryStore()
    for step in (5, 10, 15):
        store.on_record({"step": step, "split": "train"})
    store.on_rollback(Progress(step=10))
    assert [record["step"] for record in store.records] == [5, 10]
    with pytest.raises(ValueError, match="resume: expected a directory"):
        begin(store, resume=True)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        store.best_weights(WEIGHTS)


SAVED = Manifest("x = 1\n", {"frame": "1" * 64}, {"series.csv": "a,b\n"})


def saved(path):
    state = state_at(7)
    weights = Weights(state.params, state.variables)
    save_weights(path, SAVED, weights, {"steps": 9, "best_step": 7})


def test_weights_alone_are_a_run_that_is_used_and_not_resumed(tmp_path):
    saved(tmp_path / "a" / "run")
    run = RunDirectory.open(tmp_path / "a" / "run")
    names = {"config.toml", "data.json", "result.json", "series.csv", "checkpoints"}
    assert {path.name for path in run.path.iterdir()} == names
    got = DirectoryStore(run.path).best_weights(WEIGHTS)
    np.testing.assert_array_equal(got.params["w"], 7)
    np.testing.assert_array_equal(got.variables["ema"], 3.5)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        saved(run.path)


@pytest.mark.parametrize("opt_state", [{}, {"loss": ()}, {"loss": (np.zeros(3, np.float32),)}])
def test_weights_alone_are_not_resumed_whatever_the_optimizer_keeps(tmp_path, opt_state):
    """Plain gradient descent has no state, so the arrays alone do not tell."""
    saved(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds weights only and cannot be resumed") as error:
        DirectoryStore(tmp_path / "run").begin(
            SAVED._replace(files={}),
            LIKE._replace(opt_state=opt_state),
            lambda file: None,
            resume=True,
        )
    assert "\n" not in str(error.value)
    assert DirectoryStore(tmp_path / "run").best_weights(WEIGHTS).params["w"][0] == 7


def test_a_fault_while_weights_are_saved_leaves_no_run(tmp_path, monkeypatch):
    def full(self, weights, step):
        raise OSError("disk full")

    monkeypatch.setattr("seqnets.runs.store.CheckpointStore.save_weights", full)
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list((tmp_path / "run").iterdir()) == []


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_store
from seqnets.runs import checkpoints, directory
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
owner, name = {{
    "config": (directory.RunDirectory, "write_config"),
    "data": (directory.RunDirectory, "check_data"),
    "result": (directory.RunDirectory, "write_result"),
    "checkpoint": (checkpoints, "write_weights"),
}}[{moment!r}]
setattr(owner, name, kill)
test_store.saved({path!r})
"""


@pytest.mark.parametrize("moment", ["config", "data", "result", "checkpoint"])
def test_a_kill_while_weights_are_saved_leaves_no_run(tmp_path, moment):
    path = tmp_path / "run"
    tests = str(Path(__file__).parent)
    code = KILLED.format(tests=tests, moment=moment, path=str(path))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for left in tmp_path.iterdir():
        with pytest.raises(ValueError, match="it has no config"):
            RunDirectory.open(left)
    saved(path)  # what was left is not in the way
    assert DirectoryStore(path).best_weights(WEIGHTS).params["w"][0] == 7


def test_weights_are_saved_into_a_folder_that_a_link_leads_to(tmp_path):
    (tmp_path / "there").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to(tmp_path / "there")
    saved(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "config.toml").exists()
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o750


PATHS = [
    *("a b", "ü/é", "%41", "a?b=c", "#h", "new\nline", "a:b", "s3://x", "~", "$HOME", "-rf", "'\""),
    *("./d/../e", "L" * 200, "x.orbax-checkpoint-tmp-1", "3.removed", "{a}", "a|b", "a,b", " "),
    *("[x]", "lr[0.1]", "*", "?", "back\\slash", "\\", os.fsdecode(b"not-utf8-\xff")),
]


@pytest.mark.parametrize("path", PATHS, ids=ascii)
def test_any_path_that_a_shell_accepts(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    store = DirectoryStore(f"{path}/run")
    begin(store)
    save(store, 3, 6, rank=0.5)
    assert begin(DirectoryStore(f"{path}/run"), resume=True).progress.step == 6
    assert DirectoryStore(f"{path}/run").best_weights(WEIGHTS).params["w"][0] == 3
    saved(f"{path}/saved")
    assert DirectoryStore(f"{path}/saved").best_weights(WEIGHTS).params["w"][0] == 7
    top = Path(os.path.normpath(path)).parts[0]
    assert {part.name for part in tmp_path.iterdir()} == {"d", top}  # and nothing elsewhere
    assert {part.name for part in Path(path).iterdir()} == {"run", "saved"}


def test_runs_whose_names_are_patterns_of_one_another_stay_apart(tmp_path):
    for name, step in (("a", 3), ("[ab]", 6), ("*", 9), ("b", 12)):
        store = DirectoryStore(tmp_path / name)
        begin(store)
        save(store, step)
    for name, step in (("a", 3), ("[ab]", 6), ("*", 9), ("b", 12)):
        assert DirectoryStore(tmp_path / name).best_weights(WEIGHTS).params["w"][0] == step


def test_a_place_for_links_that_is_full_damages_nothing(tmp_path, monkeypatch):
    """A checkpoint that cannot be reached now is not set aside as a damaged one."""
    path = tmp_path / "[x]"
    store = DirectoryStore(path)
    begin(store)
    save(store, 3)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        with pytest.raises(OSError, match="No space left on device"):
            begin(DirectoryStore(path), resume=True)
    assert [part.name for part in (path / "checkpoints").iterdir()] == ["3"]
    assert begin(DirectoryStore(path), resume=True).progress.step == 3


def test_links_to_a_folder_are_removed_and_not_what_they_lead_to(tmp_path, monkeypatch):
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(links))
    store = DirectoryStore(tmp_path / "[x]")
    begin(store)
    save(store, 3)
    assert store.best_weights(WEIGHTS).params["w"][0] == 3
    assert list(links.iterdir()) == []
    shutil.rmtree(links)
    assert store.checkpoints.newest() == 3


def test_a_path_relative_to_the_parent(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    begin(DirectoryStore("../there"))
    save(DirectoryStore("../there"), 3)
    assert begin(DirectoryStore("../there"), resume=True).progress.step == 3
    saved("../saved")
    assert DirectoryStore("../saved").best_weights(WEIGHTS).params["w"][0] == 7
