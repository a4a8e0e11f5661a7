"""A disk that is full or may not be written: one line, status 2, what was saved stays whole."""

import contextlib
import os
import shutil
import subprocess

import pytest
from harness import Trainer, result_of, strange_files, write_config

from seqnets.runs import CheckpointStore

LIMITED = ("sh", "-c", 'ulimit -f 8; exec "$@"', "sh")  # blocks of 512 or 1024 bytes, by the shell


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path, steps=100)


def check_refused(trainer, *words):
    assert trainer.wait() == 2, trainer.err
    (line,) = trainer.err
    assert ": error: " in line
    for word in words:
        assert word in line


def check_goes_on(config, out, tmp_path, *settings):
    """Resumed where there is room, it ends as a run does that always had it."""
    with Trainer(config, out, "--resume", *settings) as trainer:
        assert trainer.wait() == 0, trainer.err
    with Trainer(config, tmp_path / "straight", *settings) as trainer:
        assert trainer.wait() == 0, trainer.err
    assert result_of(out)["parameters_sha256"] == result_of(tmp_path / "straight")[
        "parameters_sha256"
    ]  # fmt: skip
    records = [(path / "metrics.jsonl").read_bytes() for path in (out, tmp_path / "straight")]
    assert records[0] == records[1]
    assert not strange_files(out)


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes, or a skip where nobody may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here; see the limit on files")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(config, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "220k"):
        with Trainer(config, disk / "out", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache")) as t:
            check_refused(t, "No space left on device")
        store = CheckpointStore(disk / "out" / "checkpoints")
        assert store.newest() > 0
        assert not strange_files(disk / "out")
        shutil.copytree(disk / "out", tmp_path / "out")
    check_goes_on(config, tmp_path / "out", tmp_path)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(config, tmp_path):
    """Needs no rights: every write beyond it fails, as on a disk that fills up all of a sudden."""
    out = tmp_path / "out"
    large = ("--set", "model.hidden=128")  # so that writes are left when the first fails
    with Trainer(config, out, *large, "--max-steps", "60") as trainer:
        assert trainer.wait() == 0, trainer.err
    with Trainer(config, out, *large, "--resume", prefix=LIMITED) as trainer:
        check_refused(trainer, "cannot be written: File too large")
    assert CheckpointStore(out / "checkpoints").newest() == 60
    check_goes_on(config, out, tmp_path, *large)


@contextlib.contextmanager
def read_only(folder):
    """A folder that may be read only: by its rights, or for the superuser by its file system."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(config, tmp_path):
    disk = tmp_path / "disk"
    elsewhere = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    with small_disk(disk, "100m") if not os.geteuid() else contextlib.nullcontext(disk.mkdir()):
        with Trainer(config, disk / "out", "--max-steps", "60", **elsewhere) as trainer:
            assert trainer.wait() == 0, trainer.err
        before = {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()}
        with read_only(disk):
            with Trainer(config, disk / "new", **elsewhere) as trainer:
                check_refused(trainer, "new")
            if not os.geteuid():  # rights are those of the folder, not of what is in it
                with Trainer(config, disk / "out", "--resume", **elsewhere) as trainer:
                    check_refused(trainer, "Read-only file system")
        assert {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()} == before
        shutil.copytree(disk / "out", tmp_path / "out")
    check_goes_on(config, tmp_path / "out", tmp_path)
