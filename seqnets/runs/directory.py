"""Run directories: the files of a training run.

config.toml     resolved configuration, from which the run can be rebuilt, and checksums
data.json       SHA-256 of the data, by names for messages
metrics.jsonl   records, one JSON object per line
result.json     final metrics
checkpoints/    states for resuming and for use
tensorboard/    records for TensorBoard, if requested
.lock           the process that is training, while there is one

An application may add files, such as ``tokenizer.json``.
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

MAXIMUM_BYTES = 2**24  # of data.json


class Manifest(NamedTuple):
    """What a run was made from, and what is needed besides its checkpoints to use it."""

    config: str
    """Resolved configuration, as TOML."""
    checksums: Mapping[str, str]
    """SHA-256 of the data, by names that appear only in messages."""
    files: Mapping[str, str]
    """Contents of additional files by name."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The folder of one run; use `create`, `resume`, or `open` to get one.

    Attributes:
      path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """Create the folder of a new run, and its parents.

        Args:
          path: the folder, new or empty.

        Raises:
          ValueError: if the path is a file or a folder that is not empty.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{path}: expected a folder, got a file") from error
        if not all(map(_is_left_over, path.iterdir())):
            run = cls(path)
            hint = "a run, which can be resumed" if run.config_file.exists() else "files"
            raise ValueError(f"{path}: expected a new or empty folder, but it contains {hint}")
        return cls(path)

    @classmethod
    def resume(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run to continue it.

        Args:
          path: the folder; it may be empty, as when a run was killed right after its start.

        Raises:
          ValueError: as for `open`, unless the folder is empty.
        """
        folder = Path(path)
        if folder.is_dir() and all(map(_is_left_over, folder.iterdir())):
            return cls(folder)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an earlier run.

        Args:
          path: the folder.

        Raises:
          ValueError: if the folder does not exist, has no ``config.toml``, has a file that does not
            match its checksum, or contains a link (an untrusted run could use it to write or remove
            files outside the folder), a device, or a FIFO (reading it may never end).
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise ValueError(f"{path}: expected a run directory, but there is no such folder")
        if not run.config_file.is_file():
            raise ValueError(f"{path}: expected a run directory, but it has no config.toml")
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
        """The checksums of the data."""
        return self.path / "data.json"

    @property
    def metrics_file(self) -> Path:
        """The records."""
        return self.path / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """The final metrics."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def remove_partial_files(self) -> None:
        """Remove incomplete files of a run that was killed."""
        for path in filter(_is_partial, self.path.iterdir()):
            path.unlink(missing_ok=True)

    def check_data(self, checksums: Mapping[str, str]) -> None:
        """Compare the data with ``data.json``, and update the names in it.

        Args:
          checksums: current SHA-256 of the data, by name.

        Raises:
          DataError: if ``data.json`` cannot be read, or the data have changed.
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
        """Write additional files, each atomically."""
        for name, text in files.items():
            write_atomically(self.path / name, text.encode())

    def write_config(self, text: str, files: Mapping[str, str]) -> None:
        """Write ``config.toml`` with checksums of itself and of ``files``, atomically."""
        text = with_checksums(self.config_file.name, text, files)
        write_atomically(self.config_file, text.encode())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json`` atomically; see `strict_json`."""
        write_atomically(self.result_file, f"{strict_json(result, indent=2)}\n".encode())


def _is_left_over(path: Path) -> bool:
    """Whether a folder with this file still counts as empty: a partial file, or the lock."""
    return _is_partial(path) or path.name == NAME


def _is_partial(path: Path) -> bool:
    """Whether it is a temporary file that `write_atomically` did not get to rename."""
    return path.name.startswith(".") and path.name.endswith(".partial")
