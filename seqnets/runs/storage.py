"""The folder of one checkpoint, read without trusting it.

Orbax writes the arrays of a checkpoint as Zarr within OCDBT, the key-value store of TensorStore.
What is read here may come from anywhere, so TensorStore is asked for nothing before this is known:

    links, devices     none: nothing outside the folder is read
    bytes on the disk  at most 1 GiB and 16 times what is wanted of them
    index of OCDBT     at most 64 MiB after decompression, from the heads of its compressed blocks
    an array           of the very dtype and shape that is wanted, in blocks no larger than itself

Of the arrays themselves TensorStore decompresses no more than their shape says, and in the store it
refuses names with ``..``.
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

# TensorStore is imported where it is used: reading figures or reports should not wait for it.

SPARE_BYTES = 2**30
SPARE_RATIO = 16
DENSEST = 2**15
"""Zstandard makes at least 4 bytes of every 128 KiB."""

INDEX_BYTES = 2**26
METADATA_BYTES = 2**16
SMALL_BLOCK = 2**20
BLOCK_BYTES = 2**17
"""The largest block of Zstandard, after decompression."""

NODE = re.compile(rb"\x0c\xdb(?:\x12\x34|\x20\xde|\x3a\x2a)")
"""How version nodes, B-tree nodes and manifests of OCDBT begin; then comes the length."""
FRAME = re.compile(rb"\x28\xb5\x2f\xfd(?=.)", re.DOTALL)
"""How a frame of Zstandard begins."""


class _Metadata(msgspec.Struct):
    """What is read of ``.zarray``."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    compressor: dict[str, Any] | None
    filters: None


def check_folder(path: Path, wanted: int) -> None:
    """Check the sizes of a checkpoint before it is opened.

    Args:
      path: the folder.
      wanted: bytes of the arrays that will be read from it.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it holds what no checkpoint does, or is too large or too small.
    """
    limit = SPARE_BYTES + SPARE_RATIO * wanted
    total = index = 0
    for file, size in _files(path):
        total += size
        if total > limit:
            raise ValueError(f"expected at most {limit} bytes to read {wanted} from, got more")
        for node in _nodes(file) if size else ():
            index += node
            if index > INDEX_BYTES:
                raise ValueError(f"expected an index of at most {INDEX_BYTES} bytes, got more")
    if wanted > DENSEST * total:
        raise ValueError(f"expected {wanted} bytes of arrays, got {total} bytes in files")


def _files(path: Path) -> Iterator[tuple[Path, int]]:
    """All files below a folder, with their sizes.

    Raises:
      ValueError: at the first that is neither file nor folder.
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
    """Of each node of OCDBT in a file, a bound of its bytes before and after decompression."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for found in NODE.finditer(data):
            length = int.from_bytes(data[found.end() : found.end() + 8], "little")
            stop = found.start() + length
            if stop > len(data):
                continue  # numbers of an array that look like a node
            yield length
            for frame in FRAME.finditer(data, found.end(), stop):
                yield _frame_bytes(data, frame.end(), stop)


def _frame_bytes(data: mmap.mmap, start: int, stop: int) -> int:
    """The most that a frame of Zstandard gives whose header begins at ``start``.

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
    """Read an array of the dtype and shape of ``like`` from a folder that was checked.

    Args:
      path: the folder of the checkpoint.
      name: of the leaf.
      like: an array or its shape and dtype.

    Raises:
      ValueError: if it is not there, damaged, or of another kind.
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
    """Raise unless an array is cut into few blocks, none larger than itself, as Orbax does."""
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
