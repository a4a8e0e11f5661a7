"""What a folder may do to its reader: stores made to deceive, by TensorStore itself or by hand."""

import json
import os
import resource
import struct

import jax
import numpy as np
import pytest
import tensorstore as ts

from seqnets.runs import storage
from seqnets.runs.storage import check_folder, read_array

LIKE = jax.ShapeDtypeStruct((2, 3), np.dtype("float32"))
VALUES = np.arange(6, dtype="<f4").reshape(2, 3)
METADATA = {
    "zarr_format": 2,
    "shape": [2, 3],
    "chunks": [2, 3],
    "dtype": "<f4",
    "compressor": {"id": "zstd", "level": 1},
    "fill_value": None,
    "filters": None,
    "order": "C",
    "dimension_separator": ".",
}


def store(path, config=None):
    base = {"driver": "file", "path": f"{path}/arrays/"}
    return ts.KvStore.open({"driver": "ocdbt", "base": base, "config": config or {}}).result()


def write(path, chunk, metadata=METADATA, config=None):
    """A store of one array ``w``, whose metadata and one block are what is wanted."""
    kv = store(path, config)
    kv.write("w/.zarray", metadata if isinstance(metadata, bytes) else json.dumps(metadata))
    kv.write("w/0.0", chunk).result()
    return path


def raw_frame(data):
    """Zstandard that repeats what it holds, in one block."""
    size = struct.pack("<I", len(data))
    return b"\x28\xb5\x2f\xfd\xa0" + size + (len(data) << 3 | 1).to_bytes(3, "little") + data


def bomb(blocks):
    """Zstandard of 4 bytes for each 128 KiB of zeros."""
    block = (2**17 << 3 | 2).to_bytes(3, "little") + b"\0"
    last = (2**17 << 3 | 3).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\0\x38" + block * (blocks - 1) + last


def crc32c(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return struct.pack("<I", register ^ 0xFFFFFFFF)


def read(path, like=LIKE):
    check_folder(path, like.size * like.dtype.itemsize)
    return read_array(path, "w", like)


@pytest.mark.parametrize("config", [None, {"compression": None}])
def test_an_honest_store_is_read(tmp_path, config):
    np.testing.assert_array_equal(
        read(write(tmp_path, raw_frame(VALUES.tobytes()), config=config)), VALUES
    )


def test_an_array_may_lie_uncompressed(tmp_path):
    got = read(write(tmp_path, VALUES.tobytes(), {**METADATA, "compressor": None}))
    np.testing.assert_array_equal(got, VALUES)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": [10**9, 3]}, r"stored as <f4 \(1000000000, 3\)"),
        ({"shape": [10**18, 10**18]}, r"stored as <f4 \(10000000000000000"),
        ({"shape": [-2, 3]}, r"stored as <f4 \(-2, 3\)"),
        ({"shape": [2, 4], "chunks": [2, 4]}, r"stored as <f4 \(2, 4\)"),
        ({"shape": [6], "chunks": [6]}, r"stored as <f4 \(6,\)"),
        ({"dtype": "<f8"}, r"stored as <f8 \(2, 3\)"),
        ({"dtype": "|O"}, r"stored as \|O"),
        ({"dtype": "|V1000000000"}, r"stored as \|V1000000 "),
        ({"dtype": [["a", "<f4", [10**9]]]}, r"Expected `str`, got `array` - at `\$\.dtype`"),
        ({"chunks": [10**6, 10**6]}, r"in blocks of \(1000000, 1000000\)"),
        ({"chunks": [1, 1]}, r"in 6 blocks"),
        ({"chunks": [0, 3]}, r"in blocks of \(0, 3\)"),
        ({"chunks": [2]}, r"zip\(\) argument 2 is shorter"),
        ({"compressor": {"id": "zlib", "level": 1}}, "in a way that seqnets does not write"),
        ({"compressor": {"id": "blosc"}}, "in a way that seqnets does not write"),
        ({"compressor": {"id": "pickle"}}, "in a way that seqnets does not write"),
        ({"filters": [{"id": "pickle"}]}, r"Expected `null`"),
        ({"zarr_format": 3}, "zarr_format"),
    ],
)
def test_metadata_made_to_deceive_is_refused(tmp_path, change, told):
    path = write(tmp_path, raw_frame(VALUES.tobytes()), {**METADATA, **change})
    with pytest.raises(ValueError, match=told):
        read(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 50_000, b"\xff", b"null"])
def test_metadata_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"JSON|Expected|truncated|UTF-8"):
        read(write(tmp_path, raw_frame(VALUES.tobytes()), text))


def test_metadata_may_not_fill_the_memory(tmp_path):
    text = json.dumps(METADATA).encode() + b" " * storage.METADATA_BYTES
    with pytest.raises(ValueError, match="its metadata has more than 65536 bytes"):
        read(write(tmp_path, raw_frame(VALUES.tobytes()), text))


def test_blocks_are_decompressed_to_their_size_only(tmp_path):
    """TensorStore's own doing, on which `storage` relies: 96 KB that would be 3 GiB."""
    path = write(tmp_path, bomb(3 * 2**13))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="End of data expected"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_an_index_may_not_fill_the_memory(tmp_path):
    """A few KB of compressed zeros, inlined into the index."""
    config = {"max_inline_value_bytes": 2**20, "max_decoded_node_bytes": 2**30}
    path = write(tmp_path, raw_frame(VALUES.tobytes()), config=config)
    kv = store(path)
    with ts.Transaction() as transaction:
        for i in range(65):
            kv.with_transaction(transaction)[f"x{i}"] = bytes(2**20)
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 2**16
    read_array(path, "w", LIKE)  # TensorStore alone has nothing against it
    with pytest.raises(ValueError, match="an index of at most 67108864 bytes"):
        read(path)


@pytest.mark.parametrize("before", [b"", b"\x50\x2a\x4d\x18\x01\0\0\0x", raw_frame(b"x")])
def test_every_frame_of_a_node_is_counted(tmp_path, before):
    """Also behind one that is skipped, and behind another."""
    body = b"\0\1" + before + bomb(600)
    node = b"\x0c\xdb\x20\xde" + struct.pack("<Q", len(body) + 16) + body
    (tmp_path / "d").write_bytes(b"values" + node + crc32c(node))
    with pytest.raises(ValueError, match="an index of at most 67108864 bytes"):
        check_folder(tmp_path, 0)


def test_a_node_of_many_nodes_is_refused_at_once(tmp_path):
    """Each seems to hold all that come behind it: nothing may look at every pair."""
    node = b"\x0c\xdb\x20\xde" + struct.pack("<Q", 2**22) + b"\0\0"
    (tmp_path / "d").write_bytes(node * (2**23 // len(node)))
    with pytest.raises(ValueError, match="an index of at most 67108864 bytes"):
        check_folder(tmp_path, 0)


def test_numbers_that_look_like_a_node_do_no_harm(tmp_path):
    (tmp_path / "d").write_bytes(b"\x0c\xdb\x20\xde" + b"\xff" * 8 + bomb(600))
    check_folder(tmp_path, 0)


@pytest.mark.parametrize(
    ("frame", "bound"),
    [
        (raw_frame(bytes(100)), 100),
        (raw_frame(bytes(2**17)), 2**17),
        (bomb(3), 3 * 2**17),
        (b"\x28\xb5\x2f\xfd\0\0" + bomb(3)[6:], 3 * 2**10),  # window of 1 KiB
        (b"\x28\xb5\x2f\xfd\x60\x01\x00" + b"\x0b\0\0a", 257),  # 2 bytes of size, less 256
        (b"\x28\xb5\x2f\xfd\x03\0\1\2\3\4" + bomb(3)[6:], 3 * 2**10),  # with a dictionary
        (b"\x28\xb5\x2f\xfd", 0),
        (b"\x28\xb5\x2f\xfd\xe7", 0),
    ],
)
def test_what_a_frame_gives_at_most(tmp_path, frame, bound):
    body = b"\0\1" + frame
    node = b"\x0c\xdb\x3a\x2a" + struct.pack("<Q", len(body) + 12) + body
    (tmp_path / "d").write_bytes(node)
    assert sum(storage._nodes(tmp_path / "d")) == len(node) + bound


def test_nothing_outside_the_folder_is_read(tmp_path):
    """TensorStore's own doing, on which `storage` relies: names upwards in the index."""
    config = {"compression": None, "max_inline_value_bytes": 0}
    path = write(tmp_path / "7", raw_frame(VALUES.tobytes()), config=config)
    data = next(f for f in (path / "arrays" / "d").iterdir() if b"w/.zarray" in f.read_bytes())
    (tmp_path / "o").mkdir()
    inside = f"d/{data.name}".encode()
    outside = b"../../o/" + data.name[:26].encode()
    data.rename(path / "arrays" / outside.decode())
    manifest = path / "arrays" / "manifest.ocdbt"
    assert inside in manifest.read_bytes()
    bent = manifest.read_bytes().replace(inside, outside)[:-4]
    manifest.write_bytes(bent + crc32c(bent))
    with pytest.raises(ValueError, match="Invalid key"):
        read(path)


def test_only_files_and_folders_are_opened(tmp_path):
    path = write(tmp_path, raw_frame(VALUES.tobytes()))
    os.mkfifo(path / "arrays" / "pipe")  # opening it would wait for ever
    with pytest.raises(ValueError, match="pipe is a link, or neither file nor folder"):
        read(path)


def test_files_may_not_be_far_larger_than_what_is_wanted(tmp_path):
    path = write(tmp_path, raw_frame(VALUES.tobytes()))
    with (path / "arrays" / "d" / "sparse").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match="expected at most 1073742208 B for 24 B of arrays"):
        read(path)


def test_more_is_not_wanted_than_files_can_hold(tmp_path):
    path = write(tmp_path, raw_frame(VALUES.tobytes()))
    with pytest.raises(ValueError, match=f"expected {4 * 10**10} bytes of arrays, got "):
        read(path, jax.ShapeDtypeStruct((10**5, 10**5), np.dtype("float32")))
