"""Files: written whole or not at all, through links and into devices, and read up to a limit."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest

from seqnets import files
from seqnets.files import descriptor_of, read_at_most, read_json, write_atomically, write_output


@pytest.fixture
def in_time():
    """What would wait forever fails after 10 seconds."""

    def ring(*_):
        raise TimeoutError("waited for a file that has no end")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def kind_of(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


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


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkfifo, "a FIFO"), (os.mkdir, "a directory"), (make_socket, "a socket"),
     (lambda path: path.symlink_to("/dev/zero"), "a device")],
)  # fmt: skip
@pytest.mark.usefixtures("in_time")
def test_only_regular_files_are_read(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    path = tmp_path / "f"
    make(path.relative_to(tmp_path) if make is make_socket else path)
    for read in (read_at_most, read_json):
        with pytest.raises(OSError, match=f"expected a regular file, got {kind}"):
            read(path, 100)


def test_links_are_read_through(tmp_path):
    (tmp_path / "file").write_bytes(b"12")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link to link").symlink_to("link")
    assert read_at_most(tmp_path / "link to link", 100) == b"12"


@pytest.mark.parametrize("before", [None, b"old and longer"])
def test_an_output_goes_through_links(tmp_path, before):
    """The links stay, what they lead to is replaced whole: nobody sees a half of it."""
    (tmp_path / "folder").mkdir()
    target, link, outer = tmp_path / "folder" / "file", tmp_path / "link", tmp_path / "outer"
    if before is not None:
        target.write_bytes(before)
        inode = target.stat().st_ino
    link.symlink_to("folder/file")
    outer.symlink_to(link)
    write_output(outer, b"new")
    assert outer.is_symlink()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert before is None or target.stat().st_ino != inode
    assert os.listdir(tmp_path / "folder") == ["file"]


def test_an_output_keeps_the_permissions_of_the_file(tmp_path):
    path = tmp_path / "file"
    path.touch(mode=0o600)
    write_output(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(tmp_path):
    """Made here, or a defect would cost the machine its own."""
    device, link = tmp_path / "null", tmp_path / "link"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError as error:
        pytest.skip(f"devices cannot be made or used here: {error}")
    link.symlink_to(device)
    for path in (device, link):
        write_output(path, b"new")
        assert kind_of(device) == stat.S_IFCHR
        assert kind_of(link) == stat.S_IFLNK


@pytest.mark.usefixtures("in_time")
def test_a_fifo_is_written_into(tmp_path):
    fifo, content = tmp_path / "fifo", b"many " * 100_000  # more than a pipe holds at once
    os.mkfifo(fifo)
    writer = threading.Thread(target=write_output, args=(fifo, content))
    writer.start()
    assert fifo.read_bytes() == content
    writer.join()
    assert kind_of(fifo) == stat.S_IFIFO


WRITE = r"""
import sys
from seqnets.files import write_output
print("before")
write_output(sys.argv[1], b"written\n")
print("after")
"""


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "link"])
@pytest.mark.parametrize("appended", [True, False])
def test_standard_output_is_gone_on_with(tmp_path, path, appended):
    """Where it is a file, that is no reason to replace the file: the shell holds it."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    log = tmp_path / "log"
    log.write_bytes(b"earlier\n")
    with log.open("ab" if appended else "wb") as out:
        command = [sys.executable, "-c", WRITE, path]
        subprocess.run(command, stdout=out, cwd=tmp_path, check=True, timeout=60)
    assert log.read_text() == "earlier\n" * appended + "before\nwritten\nafter\n"


def test_descriptors_by_name(tmp_path):
    (tmp_path / "link").symlink_to("/dev/fd/17")
    (tmp_path / "ring").symlink_to("ring")
    expected = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2, "/proc/self/fd/5": 5,
                tmp_path / "link": 17, "/dev/null": None, tmp_path / "5": None, "": None,
                tmp_path / "ring": None, "nul\0l": None, "5": None}  # fmt: skip
    assert {path: descriptor_of(path) for path in expected} == expected
