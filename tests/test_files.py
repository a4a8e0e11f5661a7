"""Atomic writing: a fault leaves the old content and nothing beside it."""

import os

import pytest

from seqnets import files
from seqnets.files import write_atomically


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_fault_while_writing_leaves_the_old_text(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    write_atomically(path, b"old\n")

    def fault(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, broken, fault)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, b"new and longer\n")
    assert path.read_bytes() == b"old\n"
    write_atomically(path, b"new\n")
    assert path.read_bytes() == b"new\n"
    assert os.listdir(tmp_path) == ["file"]
