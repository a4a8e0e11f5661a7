import codecs
import contextlib
import errno
import gzip
import os
import shutil
import stat
import subprocess
import tracemalloc

import pytest

from seqnets.data.errors import DataError
from seqnets.data.files import check_output, decode_utf8, read_bytes, write_file

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


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a FIFO"), (os.mkdir, "a directory")])
def test_what_may_have_no_end_is_refused_unread(tmp_path, monkeypatch, make, kind):
    path = tmp_path / "data"
    make(path)

    def opened(*args, **kwargs):
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(DataError, match="cannot be read: expected a regular file, got ") as caught:
        read_bytes(path)
    assert str(caught.value).endswith(kind)
    with pytest.raises(DataError, match="expected a regular file, got a device"):
        read_bytes("/dev/zero")


@pytest.fixture
def given(tmp_path):
    """``given(file)``: standard input comes from there."""
    kept = os.dup(0)
    opened = []

    def give(path):
        opened.append(os.open(path, os.O_RDONLY))
        os.dup2(opened[-1], 0)

    yield give
    os.dup2(kept, 0)
    for descriptor in (kept, *opened):
        os.close(descriptor)


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "link"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(tmp_path, stored, given, name, pack):
    (tmp_path / "link").symlink_to("/dev/stdin")
    path = name if name != "link" else tmp_path / name
    given(stored(pack(CONTENT)))
    assert read_bytes(path, 100) == CONTENT
    with pytest.raises(DataError, match="got an empty file"):
        read_bytes(path)
    given("/dev/zero")
    with pytest.raises(DataError, match=f"{name}: expected at most 100 bytes of content, got more"):
        read_bytes(path, 100)


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


LINES = "unique_id,ds,y\nä,2024-01-01,3\n" * 3


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        *((LINES.encode(name), name.upper()) for name in ("utf-16", "utf-32")),
        *((codecs.BOM_UTF16_BE + LINES.encode("utf-16be"), "UTF-16") for _ in range(1)),
        *((LINES.encode(f"utf-{end}"), f"UTF-{end.upper()}") for end in ("16le", "16be")),
        *((LINES.encode(f"utf-{end}"), f"UTF-{end.upper()}") for end in ("32le", "32be")),
        ("plain ASCII".encode("utf-16le"), "UTF-16LE"),  # valid as UTF-8, with zeros
        (LINES.encode("latin-1"), "ISO-8859-1"),
        (b"x" * 10_001 + "für".encode("latin-1"), "ISO-8859-1"),
        ("„für“ 5 €".encode("cp1252") + b" x" * 20, "WINDOWS-1252"),
    ],
)
def test_the_likely_encoding_is_named(data, encoding):
    with pytest.raises(DataError) as caught:
        decode_utf8("f", data)
    hint = f"; it looks like {encoding}: convert it with iconv -f {encoding} -t UTF-8"
    assert str(caught.value).endswith(hint)
    if iconv := shutil.which("iconv"):
        done = subprocess.run([iconv, "-f", encoding, "-t", "UTF-8"], input=data, stdout=-1)
        assert decode_utf8("f", done.stdout) == data.decode(encoding)


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode()[:20] + b"\xff" + LINES.encode(),  # damaged
        "日本語の文".encode("shift-jis") * 9,  # which of many it is, the bytes do not say
        bytes(range(256)),
    ],
)
def test_no_encoding_is_named_where_none_is_likely(data):
    with pytest.raises(DataError, match=r"expected UTF-8 text, got byte 0x.. at .*\)$"):
        decode_utf8("f", data)


def test_zeros_in_a_text_are_characters():
    assert decode_utf8("f", b"a\0b c d e f g h\0") == "a\0b c d e f g h\0"


def test_a_byte_order_mark_is_no_text():
    assert decode_utf8("f", codecs.BOM_UTF8 + CONTENT) == CONTENT.decode()


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


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
    for name in (".", "absent/file", "", f"{tmp_path}", f"{tmp_path}/new/"):
        with pytest.raises(DataError, match="--output: cannot be written: "):
            check_output("--output", name and os.path.join(tmp_path, name))
    check_output("--output", tmp_path / "file")
    check_output("--output", "/dev/null")
    assert not list(tmp_path.iterdir())
