"""Files: written whole or not at all, and read up to a limit."""

import os

import pytest

from seqnets import files
from seqnets.files import read_at_most, read_json, write_atomically


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


def test_a_link_prepared_for_the_temporary_file_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".file.{os.getpid()}.partial").symlink_to(outside)
    (folder / "file").symlink_to(outside)
    write_atomically(folder / "file", b"new")
    assert outside.read_bytes() == b"precious"
    assert (folder / "file").read_bytes() == b"new"
    assert not (folder / "file").is_symlink()
    assert os.listdir(folder) == ["file"]


def test_reading_ends_at_the_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_at_most(path, 4) == b"1234"
    assert read_json(path, 4) == 1234
    for read in (read_at_most, read_json):
        with pytest.raises(ValueError, match="expected at most 3 bytes, got more"):
            read(path, 3)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none", 3)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 5000, b"", b"\xff", b"{]"])
def test_what_json_cannot_read_is_a_value_error(tmp_path, text):
    path = tmp_path / "file"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"."):
        read_json(path, 2**20)
