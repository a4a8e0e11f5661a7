"""Run directories: what a training run leaves behind.

config.toml     the resolved configuration, from which the run can be rebuilt, and checksums
data.json       the SHA-256 of the data, by names that are hints
metrics.jsonl   one JSON object a line, a report each
result.json     final figures
checkpoints/    states to resume from and to use
.lock           who is training, while somebody is
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seqnets.data.checksums import check_same_data
from seqnets.data.errors import DataError
from seqnets.files import is_special, read_json, write_atomically
from seqnets.runs.file_checksums import check_checksums, with_checksums
from seqnets.runs.json_text import strict_json
from seqnets.runs.lock import NAME

__all__ = ["Manifest", "RunDirectory"]

MAXIMUM_BYTES = 2**24  # of the record of the data


class Manifest(NamedTuple):
    """What a run was made from, and what is needed beside its checkpoints to use it."""

    config: str
    """Resolved configuration, as TOML."""
    checksums: Mapping[str, str]
    """Of the data, by names that are hints."""
    files: Mapping[str, str]
    """Further files, text by name."""


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
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{path}: expected a folder, got a file in its place") from error
        if not all(map(_is_left_over, path.iterdir())):
            raise ValueError(f"{path}: expected a new or empty folder, it has files in it")
        return cls(path)

    @classmethod
    def resume(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run to continue it.

        An empty folder will do: that is all there is where a run was killed at its very start.

        Raises:
          ValueError: if it is not there, or has no ``config.toml`` but other files.
        """
        folder = Path(path)
        if folder.is_dir() and all(map(_is_left_over, folder.iterdir())):
            return cls(folder)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run.

        Raises:
          ValueError: if it is not there, has no ``config.toml``, a file that a checksum is kept of
            has changed, or there is a link in it: through one a run from elsewhere could make this
            one write or remove files outside the folder; or a device or a FIFO, which would be
            waited for.
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
                if is_special(part):
                    raise ValueError(f"{path}: expected a folder of regular files, got {part}")
        check_checksums(run.config_file)
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

    def remove_partial_files(self) -> None:
        """Remove what a run that was killed had begun to write."""
        for path in filter(_is_partial, self.path.iterdir()):
            path.unlink(missing_ok=True)

    def check_data(self, checksums: Mapping[str, str]) -> None:
        """Compare the data with the record of it, and record under what names it is now.

        Raises:
          DataError: if the record cannot be read, or the data is other than then.
        """
        if self.data_file.exists():
            try:
                before = dict(read_json(self.data_file, MAXIMUM_BYTES))
            except (OSError, ValueError, TypeError) as error:
                raise DataError(f"{self.data_file}: cannot be read: {error}") from error
            check_same_data(before, checksums)
            if before == dict(checksums):
                return
        write_atomically(self.data_file, f"{json.dumps(dict(checksums), indent=2)}\n".encode())

    def write_files(self, files: Mapping[str, str]) -> None:
        """Write further files, each whole or not at all."""
        for name, text in files.items():
            write_atomically(self.path / name, text.encode())

    def write_config(self, text: str, files: Mapping[str, str]) -> None:
        """Write ``config.toml`` with checksums of it and of further files, whole or not at all."""
        text = with_checksums(self.config_file.name, text, files)
        write_atomically(self.config_file, text.encode())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``, whole or not at all; see `strict_json`."""
        write_atomically(self.result_file, f"{strict_json(result, indent=2)}\n".encode())


def _is_left_over(path: Path) -> bool:
    """Whether it says nothing of a run: a partial file, or the lock."""
    return _is_partial(path) or path.name == NAME


def _is_partial(path: Path) -> bool:
    """Whether it is a file that `write_atomically` did not come to put in its place."""
    return path.name.startswith(".") and path.name.endswith(".partial")
