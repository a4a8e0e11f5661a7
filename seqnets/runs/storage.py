"""Reading the folder of an untrusted checkpoint.

Orbax writes the arrays of a checkpoint as Zarr in OCDBT, the key-value store of TensorStore. Since
the checkpoint may come from anywhere, this is checked before TensorStore reads it:

    links, devices     none, so that nothing outside the folder is read
    bytes on disk      at most 1 GiB plus 16 times the bytes of the expected arrays
    index of OCDBT     at most 64 MiB after decompression, from the headers of compressed blocks
    arrays             of the expected dtype and shape, in blocks not larger than the array

TensorStore itself decompresses no more of an array than its shape requires, and rejects names
with ``..`` in the store.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from seqnets.typing import Shaped

__all__ = ["check_folder", "read_array"]

# TensorStore is imported where it is used, since reading records should not wait for it.

SPARE_BYTES = 2**30
SPARE_RATIO = 16
DENSEST = 2**15
"""Zstandard compresses 128 KiB to at least 4 bytes."""

INDEX_BYTES = 2**26
METADATA_BYTES = 2**16
SMALL_BLOCK = 2**20
BLOCK_BYTES = 2**17
"""Maximum size of a Zstandard block, after decompression."""

NODE = re.compile(rb"\x0c\xdb(?:\x12\x34|\x20\xde|\x3a\x2a)")
"""Magic numbers of OCDBT version nodes, B-tree nodes, and manifests; the length follows."""
FRAME = re.compile(rb"\x28\xb5\x2f\xfd(?=.)", re.DOTALL)
"""Magic number of a Zstandard frame."""


class _Metadata(msgspec.Struct):
    """The fields of ``.zarray`` that are read."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    compressor: dict[str, Any] | None
    filters: None


def check_folder(path: Path, wanted: int) -> None:
    """Check the files of a checkpoint and their sizes before it is opened.

    Args:
      path: the folder.
      wanted: bytes of the arrays that will be read from it.

    Raises:
      OSError: if the folder cannot be read.
      ValueError: if it contains a link or a special file, or is too large or too small.
    """
    limit = SPARE_BYTES + SPARE_RATIO * wanted
    total = index = 0
    for file, size in _files(path):
        total += size
        if total > limit:
            raise ValueError(f"expected at most {limit} B for {wanted} B of arrays, got more")
        for node in _nodes(file) if size else ():
            index += node
            if index > INDEX_BYTES:
                raise ValueError(f"expected an index of at most {INDEX_BYTES} bytes, got more")
    if wanted > DENSEST * total:
        raise ValueError(f"expected {wanted} bytes of arrays, got {total} bytes in files")


def _files(path: Path) -> Iterator[tuple[Path, int]]:
    """All files in a folder and its subfolders, with their sizes.

    Raises:
      ValueError: at the first entry that is neither a file nor a folder.
    """
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry), entry.stat(follow_symlinks=False).st_size
            else:
                raise ValueError(f"{entry.name} is a link, or neither file nor folder")


def _nodes(path: Path) -> Iterator[int]:
    """Bounds of the bytes of each OCDBT node in a file, before and after decompression."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for found in NODE.finditer(data):
            length = int.from_bytes(data[found.end() : found.end() + 8], "little")
            stop = found.start() + length
            if stop > len(data):
                continue  # array data that happen to look like a node
            yield length
            for frame in FRAME.finditer(data, found.end(), stop):
                yield _frame_bytes(data, frame.end(), stop)


def _frame_bytes(data: mmap.mmap, start: int, stop: int) -> int:
    """Upper bound of the decompressed size of a Zstandard frame with its header at ``start``.

    References:
      Zstandard Compression and the 'application/zstd' Media Type, RFC 8878, section 3.1.1.
    """
    descriptor, exponent = data[start], data[min(start + 1, stop - 1)]
    single = descriptor >> 5 & 1
    field = start + 2 - single + (0, 1, 2, 4)[descriptor & 3]
    position = field + (single, 2, 4, 8)[descriptor >> 6]
    window = (1 << 10 + (exponent >> 3)) * (8 + (exponent & 7)) // 8
    if single:
        content = int.from_bytes(data[field:position], "little")
        window = content + (256 if position - field == 2 else 0)
    total = 0
    while position + 3 <= stop:
        header = int.from_bytes(data[position : position + 3], "little")
        total += min(window, BLOCK_BYTES)
        position += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # 1: one byte, repeated
        if header & 1:
            break
    return total


def read_array(path: Path, name: str, like: Any) -> Shaped[np.ndarray, "*S"]:
    """Read an array with the dtype and shape of ``like`` from a folder that was checked.

    Args:
      path: folder of the checkpoint.
      name: name of the leaf.
      like: an array, or its shape and dtype.

    Raises:
      ValueError: if the array is missing, damaged, or of another dtype or shape.
    """
    import tensorstore as ts

    base = {"driver": "file", "path": f"{path / 'arrays'}/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    metadata = ts.KvStore.open(kvstore).result().read(".zarray").result().value
    if len(metadata) > METADATA_BYTES:
        raise ValueError(f"leaf {name}: its metadata has more than {METADATA_BYTES} bytes")
    _check_metadata(name, msgspec.json.decode(metadata, type=_Metadata), like)
    array = ts.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()
    return array.read().result()


def _check_metadata(name: str, metadata: _Metadata, like: Any) -> None:
    """Raise unless an array has the expected dtype and shape, and is stored as Orbax stores it."""
    if metadata.shape != like.shape or metadata.dtype not in (like.dtype.str, like.dtype.name):
        raise ValueError(f"leaf {name} is stored as {metadata.dtype[:9]} {metadata.shape}"[:200])
    cuts = list(zip(metadata.shape, metadata.chunks, strict=True))
    if not all(1 <= block <= size for size, block in cuts):
        raise ValueError(f"leaf {name} is stored in blocks of {metadata.chunks}"[:200])
    count = math.prod(-(-size // block) for size, block in cuts)
    if count > 1 + like.size * like.dtype.itemsize // SMALL_BLOCK:
        raise ValueError(f"leaf {name} is stored in {count} blocks")
    if (metadata.compressor or {"id": "zstd"}).get("id") != "zstd":
        raise ValueError(f"leaf {name} is stored in a way that seqnets does not write")
