import contextlib
import errno
import gzip
import os
import stat
import tracemalloc

import pytest

from seqnets.data.errors import DataError
from seqnets.data.files import decode_utf8, read_bytes, write_file

CONTENT = "zwölf Boxkämpfer\r\njagen\n".encode()
PACKED = gzip.compress(CONTENT, mtime=0)  # without the time: it names tests, the same everywhere


@pytest.fixture
def stored(tmp_path):
    def store(data):
        path = tmp_path / "content"
        path.write_bytes(data)
        return path

    return store


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_gzip_is_told_by_content_not_by_name(stored, pack):
    assert read_bytes(stored(pack(CONTENT))) == CONTENT


def test_two_gzip_members_are_one_content(stored):
    assert read_bytes(stored(gzip.compress(b"ab") + gzip.compress(b"cd"))) == b"abcd"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_limit_counts_unpacked_bytes(stored, pack):
    path = stored(pack(b"x" * 100))
    assert len(read_bytes(path, 100)) == 100
    with pytest.raises(DataError, match=r"content: expected at most 99 bytes of content, got more"):
        read_bytes(path, 99)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_no_more_memory_than_content(stored, pack):
    """Neither the limit nor what a gzip file would become is allocated."""
    path = stored(pack(bytes(2**25)))
    for limit, peak in ((2**31, 2**27), (2**20, 2**23)):
        tracemalloc.start()
        with contextlib.suppress(DataError):
            read_bytes(path, limit)
        assert tracemalloc.get_traced_memory()[1] < peak
        tracemalloc.stop()


def test_one_byte_is_a_file(stored):
    assert read_bytes(stored(b"\x1f")) == b"\x1f"


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_an_error(stored, data):
    with pytest.raises(DataError, match="got an empty file"):
        read_bytes(stored(data))


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x1f\x8b",
        b"\x1f\x8b not gzip after all",
        PACKED[:-9],
        PACKED[:-8] + bytes(8),
        PACKED[:12] + b"\xff" * 30,
        PACKED + b"rubbish",
    ],
)
def test_damaged_gzip_is_an_error_naming_the_file(stored, damaged):
    path = stored(damaged)
    with pytest.raises(DataError, match="damaged gzip data") as caught:
        read_bytes(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["missing", ".", "no/such/folder", "nul\0l"])
def test_what_cannot_be_opened_is_a_data_error(tmp_path, name):
    path = os.path.join(tmp_path, name)
    with pytest.raises(DataError, match="cannot be read: ") as caught:
        read_bytes(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_permission_is_a_data_error(stored, monkeypatch):
    """Refused by hand, since root may read everything."""
    path = stored(CONTENT)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read_bytes(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"ab\ncd\xff", "f: line 2: expected UTF-8 text, got byte 0xff at offset 5"),
        ("é".encode("latin-1") + b"x", "f: line 1: expected UTF-8 text, got byte 0xe9 at offset 0"),
        ("abc".encode("utf-16"), "got byte 0xff at offset 0"),
        ("né".encode()[:-1], "got byte 0xc3 at offset 1 (unexpected end of data)"),
        (b"a\xed\xa0\x80", "got byte 0xed at offset 1"),
    ],
)
def test_what_is_not_utf8_is_told_with_offset_and_line(data, told):
    with pytest.raises(DataError) as caught:
        decode_utf8("f", data)
    assert told in str(caught.value)


def test_decoding_keeps_line_ends():
    assert decode_utf8("f", CONTENT) == "zwölf Boxkämpfer\r\njagen\n"


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "out.csv"
    path.write_bytes(b"old and longer")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_writing_needs_the_folder(tmp_path):
    path = tmp_path / "absent" / "out.csv"
    with pytest.raises(DataError, match=r"out.csv: cannot be written: there is no folder"):
        write_file(path, b"new")


def test_a_failed_write_leaves_no_part(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_file(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match="No space left on device"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
