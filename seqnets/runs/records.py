"""Hooks that record a run: a file of records, a line about memory, and TensorBoard files."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from seqnets.extras import require
from seqnets.files import read_at_most, write_atomically
from seqnets.runs.json_text import strict_json
from seqnets.training import Hook, Memory, Progress

__all__ = ["MemoryReport", "MetricsFile", "TensorBoard", "read_records"]

MAXIMUM_BYTES = 2**30  # of an existing file of records


class MetricsFile(Hook):
    """Writes records as JSON lines: ``{"step": 50, "split": "train", "loss": 1.5, ...}``.

    Values that are not finite are written as null.
    """

    def __init__(self, path: str | Path, resume_at: int | None) -> None:
        """Start a file, or continue one.

        Args:
          path: the file.
          resume_at: continue after this step; later records and incomplete lines are removed. None
            starts an empty file.
        """
        self.path = Path(path)
        self._cut(resume_at)

    def on_record(self, record: dict[str, Any]) -> None:
        """Append a line and flush it."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(strict_json(record) + "\n")

    def on_rollback(self, progress: Progress) -> None:
        """Remove the records of later steps."""
        self._cut(progress.step)

    def _cut(self, step: int | None) -> None:
        write_atomically(self.path, "".join(_lines_until(self.path, step)).encode())


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read the complete records of a file that `MetricsFile` wrote.

    Args:
      path: the file.

    Returns:
      The records in the order of their steps; an empty list if there is no such file.

    Raises:
      ValueError: if the file is too large.
    """
    return [json.loads(line) for line in _lines_until(Path(path), sys.float_info.max)]


def _lines_until(path: Path, step: float | None) -> list[str]:
    """The complete records up to a step, unchanged."""
    if step is None or not path.exists():
        return []
    *lines, _ = read_at_most(path, MAXIMUM_BYTES).decode("utf-8", "replace").split("\n")
    return [f"{line}\n" for line in lines if _step_of(line) <= step]


def _step_of(line: str) -> float:
    """The step of a record; infinity if it is not one."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return math.inf


class MemoryReport(Hook):
    """Prints one line to stderr before the first step: the memory needed on each device."""

    def on_start(self, memory: Memory | None) -> None:
        """Print the line, if the memory is known."""
        if memory is not None:
            print(f"memory of each device: {memory}", file=sys.stderr)


class TensorBoard(Hook):
    """Writes records as scalars ``train/loss``, ``validation/loss`` ... for TensorBoard."""

    def __init__(self, directory: str | Path, resume_at: int | None = None) -> None:
        """Open a folder for writing.

        Args:
          directory: the folder, which is created.
          resume_at: continue after this step; TensorBoard then ignores later points in the folder.

        Raises:
          ImportError: if tensorboardX is not installed; the message says how to install it.
        """
        writer = require("tensorboardX", "tensorboard").SummaryWriter
        purge = None if resume_at is None else resume_at + 1
        self.writer = writer(str(directory), purge_step=purge)

    def on_record(self, record: dict[str, Any]) -> None:
        """Add a point for every metric."""
        for name, value in record.items():
            if name not in ("step", "split"):
                self.writer.add_scalar(f"{record['split']}/{name}", value, record["step"])
        self.writer.flush()

    def on_end(self) -> None:
        """Close the files."""
        self.writer.close()
