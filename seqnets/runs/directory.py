"""Run directories: what a training run leaves behind, and the figures that identify it.

config.toml     the resolved configuration, from which the run can be rebuilt
data.json       the SHA-256 of the data
metrics.jsonl   one JSON object a line, a report each
result.json     final figures
checkpoints/    states to resume from and to use
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqnets.files import write_atomically
from seqnets.typing import PyTree

__all__ = ["RunDirectory", "bytes_of", "parameters_sha256", "strict_json"]


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """One run's folder. Make it with `create` or `open`.

    Attributes:
      path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """Make the folder of a new run, and its parents.

        Raises:
          ValueError: if there is a file, or a folder that is not empty.
        """
        path = Path(path)
        if path.is_dir() and any(not _is_partial(part) for part in path.iterdir()):
            raise ValueError(f"{path}: expected a new or empty folder, it has files in it")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{path}: expected a folder, got a file in its place") from error
        return cls(path)._without_partial_files()

    @classmethod
    def resume(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run to go on with it.

        An empty folder will do: that is all there is where a run was killed at its very start.

        Raises:
          ValueError: if it is not there, or has no ``config.toml`` but other files.
        """
        folder = Path(path)
        if folder.is_dir() and all(map(_is_partial, folder.iterdir())):
            return cls.create(folder)
        return cls.open(folder)._without_partial_files()

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run.

        Raises:
          ValueError: if it is not there, has no ``config.toml``, or has a link in it: through one
            a run from elsewhere could make this one write or remove files outside the folder.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise ValueError(f"{path}: expected the folder of a run, there is no such folder")
        if not run.config_file.is_file():
            raise ValueError(f"{path}: expected the folder of a run, it has no config.toml")
        for folder, folders, files in os.walk(run.path):
            for part in (os.path.join(folder, name) for name in (*folders, *files)):
                if os.path.islink(part):
                    raise ValueError(f"{path}: expected a folder without links, got {part}")
        return run

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def data_file(self) -> Path:
        """The sums of the data."""
        return self.path / "data.json"

    @property
    def metrics_file(self) -> Path:
        """The records."""
        return self.path / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """The final figures."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def _without_partial_files(self) -> RunDirectory:
        """Remove what a run that was killed had begun to write."""
        for path in filter(_is_partial, self.path.iterdir()):
            path.unlink(missing_ok=True)
        return self

    def write_config(self, text: str) -> None:
        """Write ``config.toml``, whole or not at all."""
        write_atomically(self.config_file, text.encode())

    def write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json``, whole or not at all; see `strict_json`."""
        write_atomically(self.result_file, f"{strict_json(result, indent=2)}\n".encode())


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities, for which it has no words, are null.

    Args:
      value: dicts, lists and tuples of text, numbers (NumPy's scalars too), booleans and None.
      indent: spaces of indentation; None for one line.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _is_partial(path: Path) -> bool:
    """Whether it is a file that `write_atomically` did not come to put in its place."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parameters_sha256(params: PyTree) -> str:
    """SHA-256 over the paths, dtypes, shapes and bytes of all leaves, sorted by path.

    Two trees have the same sum if and only if they hold the same arrays, bit for bit, under the
    same names, whether they are of NumPy or JAX and on whichever devices.

    Args:
      params: pytree of arrays.

    Returns:
      64 hexadecimal digits.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(bytes_of(array))
    return digest.hexdigest()


def bytes_of(array: np.ndarray) -> np.ndarray:
    """The elements in C order, as uint8 without an axis of the shape: little-endian machines."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
