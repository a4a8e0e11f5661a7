"""What a run says of itself: a file of records, a progress bar, TensorBoard's files."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from seqnets.extras import require
from seqnets.files import read_at_most, write_atomically
from seqnets.runs import strict_json
from seqnets.training.hooks import Hook, Limits, Progress
from seqnets.training.memory import Memory

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["MemoryReport", "MetricsFile", "ProgressBar", "TensorBoard"]

REFRESH_SECONDS = 0.2
MAXIMUM_BYTES = 2**30  # of records read back


class MetricsFile(Hook):
    """Records as JSON, one object a line: ``{"step": 50, "split": "train", "loss": 1.5, ...}``.

    A figure that is not finite is null.
    """

    def __init__(self, path: str | Path, resume_at: int | None) -> None:
        """Begin a file, or go on with one.

        Args:
          path: the file.
          resume_at: go on after this step: later records are cut off, and so is a line that is
            not whole. None begins an empty file.
        """
        self.path = Path(path)
        self._cut(resume_at)

    def on_record(self, record: dict[str, Any]) -> None:
        """Append a line; nothing of it is held back in memory."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(strict_json(record) + "\n")

    def on_rollback(self, progress: Progress) -> None:
        """Cut off the records of later steps."""
        self._cut(progress.step)

    def _cut(self, step: int | None) -> None:
        write_atomically(self.path, "".join(_lines_until(self.path, step)).encode())


def _lines_until(path: Path, step: int | None) -> list[str]:
    """The whole records of the steps up to this one, as they are."""
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


class ProgressBar(Hook):
    """A bar on stderr; nothing at all where that is not a terminal."""

    def __init__(self, limits: Limits, stream: TextIO | None = None) -> None:
        """Show how far a run is.

        Args:
          limits: of the run.
          stream: where to draw; None for stderr.
        """
        self.limits = limits
        self.stream = sys.stderr if stream is None else stream
        self.figures: dict[str, float] = {}
        self.bar: Bar | None = None
        self.drawn = 0.0

    def on_step(self, progress: Progress, fraction: float) -> None:
        """Redraw, a few times a second."""
        if not self.stream.isatty():
            return
        if self.bar is None:
            self.bar = _new_bar(self.stream)
            self.first = dataclasses.replace(progress)
        self.progress = progress
        if time.monotonic() - self.drawn > REFRESH_SECONDS:
            self._draw()

    def on_record(self, record: dict[str, Any]) -> None:
        """Keep the losses, to show them."""
        if "loss" in record:
            self.figures["loss" if record["split"] == "train" else record["split"]] = record["loss"]

    def on_end(self) -> None:
        """Draw the end, and give the terminal back."""
        if self.bar is not None:
            self._draw()
            self.bar.stop()
            self.bar = None

    def _draw(self) -> None:
        if self.bar is not None:
            done, goal = self._done_and_goal()
            text = "  ".join([self._place(), *self._figures(), self._rate()])
            self.bar.update(
                self.bar.task_ids[0], completed=done, total=goal, description=text, refresh=True
            )
            self.drawn = time.monotonic()

    def _done_and_goal(self) -> tuple[float, float]:
        if self.limits.max_seconds:
            return self.progress.training_seconds, self.limits.max_seconds
        return self.progress.step, self.limits.max_steps or self.limits.steps

    def _place(self) -> str:
        done, goal = self._done_and_goal()
        if self.limits.max_seconds:
            return f"step {self.progress.step}  {done:.0f}/{goal:.0f} s"
        return f"step {done}/{goal}"

    def _figures(self) -> list[str]:
        return [f"{name} {value:.4f}" for name, value in self.figures.items()]

    def _rate(self) -> str:
        seconds = self.progress.training_seconds - self.first.training_seconds
        steps = self.progress.step - self.first.step
        return f"{steps / seconds:.3g} steps/s" if seconds > 0 else ""


def _new_bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.description}"),
        console=Console(file=stream, force_terminal=True),
        auto_refresh=False,
        redirect_stdout=False,  # it would send to stderr what belongs to stdout
    )
    bar.add_task("")
    bar.start()
    return bar


class MemoryReport(Hook):
    """One line on stderr before the first step: what the run takes of each device's memory."""

    def on_start(self, memory: Memory) -> None:
        """Print it."""
        print(f"memory of each device: {memory}", file=sys.stderr)


class TensorBoard(Hook):
    """Records as scalars ``train/loss``, ``validation/loss`` ... for TensorBoard."""

    def __init__(self, directory: str | Path, resume_at: int | None = None) -> None:
        """Write into a folder.

        Args:
          directory: the folder; it is made.
          resume_at: go on after this step: TensorBoard leaves out later points written before.

        Raises:
          ImportError: if tensorboardX is not installed; the message says how to install it.
        """
        writer = require("tensorboardX", "tensorboard").SummaryWriter
        purge = None if resume_at is None else resume_at + 1
        self.writer = writer(str(directory), purge_step=purge)

    def on_record(self, record: dict[str, Any]) -> None:
        """Add a point to the curve of every figure."""
        for name, value in record.items():
            if name not in ("step", "split"):
                self.writer.add_scalar(f"{record['split']}/{name}", value, record["step"])
        self.writer.flush()

    def on_end(self) -> None:
        """Close the files."""
        self.writer.close()
