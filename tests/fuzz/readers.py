"""Every reader of files: what it takes, the one error that it may raise, inputs to begin with."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tensorstore as ts

from seqnets.applications.forecasting.config import ForecastConfig
from seqnets.applications.language.config import TextConfig
from seqnets.config import ConfigError, dump, load, parse_setting
from seqnets.data.errors import DataError
from seqnets.data.series import read_series
from seqnets.data.text import read_texts
from seqnets.data.tokenizers import CharacterTokenizer, read_tokenizer
from seqnets.interop import read_safetensors, write_safetensors
from seqnets.runs import CheckpointError, MetricsFile
from seqnets.runs.checkpoint_files import read_snapshot, write_snapshot
from seqnets.training import Progress, Snapshot, TrainState

LONGEST_MESSAGE = 4000
MARK = b"\xfe\xfd\xfc"
"""Between two files in one content; no end of it is its beginning, so it is found where it is."""


class Reader(NamedTuple):
    """``read`` is given a folder of its own, and the content of the file to be read."""

    read: Callable[[Path, bytes], object]
    error: type[Exception] | tuple[type[Exception], ...]
    seeds: Callable[[Path], Iterable[bytes]]


def run(reader: Reader, folder: Path, content: bytes) -> bool:
    """Whether the content is accepted; any error but the documented one goes through."""
    try:
        reader.read(folder, content)
    except reader.error as error:
        message = str(error)
        message.encode()
        assert len(message) < LONGEST_MESSAGE, "a message is no place for a file"
        return False
    return True


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


def _series(folder: Path, content: bytes) -> None:
    for series in read_series(_file(folder, content)):
        assert len(series.values) <= 10 * max(content.count(b"\n"), content.count(b",")) + 20
        assert not np.isinf(series.values).any()


SERIES = [
    "unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2.5\na,2024-01-04,\nb,2024-01-31,1e3\n"
    "b,2024-02-29,-1\n",
    "V1,V2,V3,V4\nT1,1,2,3\nT2,4,5,\n",
    "date,x,y\n2024-01-05 09:00,1,2\n2024-01-08 09:00,3,NaN\n2024-01-09 09:00,3,4\n",
    "1\n2\n3.5\n-4e-3\n",
    "year,n\n1950,1\n1952,2\n1953,3\n",
    "\ufeffmonth;\n\"a\nb\",2\n2024Q1,3\n",
    "31/12/2023,5\n01/01/2024,6\n",
]  # fmt: skip


def _series_seeds(folder: Path) -> list[bytes]:
    plain = [text.encode() for text in SERIES]
    return [*plain, *(gzip.compress(data, mtime=0) for data in plain[:2])]


def _configuration(folder: Path, content: bytes) -> None:
    try:
        config = load(TextConfig, _file(folder, content))
    except ConfigError:
        config = load(ForecastConfig, _file(folder, content))
    assert dump(load(type(config), _file(folder, dump(config).encode()))) == dump(config)


def _configuration_seeds(folder: Path) -> list[bytes]:
    written = [dump(TextConfig()), dump(ForecastConfig())]
    return [text.encode() for text in (*written, "[optimizer.plateau]\n[optimizer.options]\nb=1")]


def _setting(folder: Path, content: bytes) -> None:
    path, value = parse_setting(content.decode("utf-8", "replace"))
    load(TextConfig, _file(folder, b""), {path: value})


def _metrics(folder: Path, content: bytes) -> None:
    MetricsFile(_file(folder, content), resume_at=7)


def _state() -> TrainState:
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 2))}
    return TrainState(np.array(7, np.int32), params, {}, (), (), jax.random.key(0))


def _checkpoint(folder: Path) -> Path:
    if not (path := folder / "7").exists():
        progress = Progress(step=7, sums={"loss": [1.0, 2.0]})
        write_snapshot(path, Snapshot(_state(), progress), 0.5)
    return path


def _header(folder: Path, content: bytes) -> None:
    """A header whose sum is right, so that all that comes after it is reached."""
    file = _checkpoint(folder) / "header" / "metadata"
    try:
        about = json.loads(content)
        text = json.dumps(about, sort_keys=True)
    except (ValueError, RecursionError):
        file.write_bytes(content)
    else:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        file.write_text(json.dumps({"format": 2, "about": about, "sha256": sha256}))
    read_snapshot(_checkpoint(folder), _state())


def _header_seeds(folder: Path) -> list[bytes]:
    header = json.loads((_checkpoint(folder) / "header" / "metadata").read_text())
    return [json.dumps(header["about"]).encode(), json.dumps(header).encode(), b'{"a": [1, {}]}']


def crc32c(data: bytes) -> bytes:
    """The sum that ends a node of OCDBT."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return struct.pack("<I", register ^ 0xFFFFFFFF)


def _mended(data: bytes) -> bytes:
    """The nodes in a file with right lengths and sums, or else nothing in them would be read."""
    start = max(data.rfind(magic) for magic in (b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"))
    if start < 0:
        return data
    node = data[start : start + 4] + struct.pack("<Q", len(data) - start) + data[start + 12 : -4]
    return data[:start] + node + crc32c(node)


def _store(folder: Path, content: bytes) -> None:
    """An index without compression, cut at a mark into the manifest and the data."""
    path = _checkpoint(folder)
    arrays = path / "arrays"
    shutil.rmtree(arrays)
    (arrays / "d").mkdir(parents=True)
    manifest, _, data = content.partition(MARK)
    (arrays / "manifest.ocdbt").write_bytes(_mended(manifest))
    (arrays / "d" / ("0" * 32)).write_bytes(_mended(data))
    read_snapshot(path, _state())


def _store_seeds(folder: Path) -> list[bytes]:
    """What Orbax writes, as TensorStore writes it without compression and into one file."""
    arrays = _checkpoint(folder) / "arrays"
    config = {"compression": None}
    stores = [
        ts.KvStore.open({"driver": "ocdbt", "base": f"file://{at}/", **more}).result()
        for at, more in ((arrays, {}), (folder / "plain", {"config": config}))
    ]
    with ts.Transaction(atomic=True) as transaction:
        for key in stores[0].list().result():
            stores[1].with_transaction(transaction)[key] = stores[0][key]
    (file,) = (folder / "plain" / "d").iterdir()
    manifest = (folder / "plain" / "manifest.ocdbt").read_bytes()
    renamed = [
        part.replace(file.name.encode(), b"0" * 32) for part in (manifest, file.read_bytes())
    ]
    return [MARK.join(renamed)]


def _arrays_seeds(folder: Path) -> list[bytes]:
    write_safetensors(folder / "arrays", {"w": np.eye(2, dtype=np.float32), "b": np.arange(3)})
    return [(folder / "arrays").read_bytes()]


READERS = {
    "checkpoint": Reader(_store, CheckpointError, _store_seeds),
    "config": Reader(_configuration, ConfigError, _configuration_seeds),
    "csv": Reader(_series, DataError, _series_seeds),
    "header": Reader(_header, CheckpointError, _header_seeds),
    "metrics": Reader(
        _metrics, ValueError, lambda _: [b'{"step": 7, "split": "train"}\n{"step": 8}\n{"st']
    ),
    "safetensors": Reader(
        lambda folder, content: read_safetensors(_file(folder, content)),
        (ValueError, TypeError),
        _arrays_seeds,
    ),
    "setting": Reader(_setting, ConfigError, lambda _: [b"train.seed=3", b"data.files=['a']"]),
    "text": Reader(
        lambda folder, content: read_texts([_file(folder, content)]),
        DataError,
        lambda _: ["größer\n".encode(), gzip.compress(b"a\r\n", mtime=0)],
    ),
    "tokenizer": Reader(
        lambda folder, content: read_tokenizer(_file(folder, content)),
        DataError,
        lambda _: [json.dumps(CharacterTokenizer("ab𝄞").to_dict()).encode(), b'{"kind": "bytes"}'],
    ),
}


def leaves_nothing_outside(folder: Path, before: set[str]) -> bool:
    """Whether the neighbours of a reader's folder are those that there were."""
    return set(os.listdir(folder.parent)) == before
