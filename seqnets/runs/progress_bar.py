"""Progress bar for terminals and notebooks."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from seqnets.training import Hook, Limits, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["ProgressBar"]

REFRESH_SECONDS = 0.2
WIDTH = 30  # characters of a bar in a notebook


class ProgressBar(Hook):
    """Shows progress on a terminal or in a notebook cell; without either, it shows nothing."""

    def __init__(self, limits: Limits, stream: TextIO | None = None) -> None:
        """Make a progress bar.

        Args:
          limits: limits of the run.
          stream: where to draw, if it is a terminal; None for stderr.
        """
        self.limits = limits
        self.stream = sys.stderr if stream is None else stream
        self.figures: dict[str, float] = {}
        self.bar: Bar | None = None
        self.display: Any = None
        self.first: Progress | None = None
        self.drawn = 0.0

    def on_step(self, progress: Progress, fraction: float) -> None:
        """Redraw, at most a few times per second."""
        if self.first is None:
            self.first = dataclasses.replace(progress)
            self.bar = _new_bar(self.stream) if self.stream.isatty() else None
            self.display = None if self.bar else _notebook_display()
        self.progress = progress
        if time.monotonic() - self.drawn > REFRESH_SECONDS:
            self._draw()

    def on_record(self, record: dict[str, Any]) -> None:
        """Keep the losses for display."""
        if "loss" in record:
            self.figures["loss" if record["split"] == "train" else record["split"]] = record["loss"]

    def on_end(self) -> None:
        """Draw the final state, and release the terminal."""
        self._draw()
        if self.bar is not None:
            self.bar.stop()
        self.bar = self.display = self.first = None

    def _draw(self) -> None:
        if self.bar is None and self.display is None:
            return
        done, goal = self._done_and_goal()
        text = "  ".join([self._place(), *self._figures(), self._rate()])
        if self.bar is not None:
            self.bar.update(
                self.bar.task_ids[0], completed=done, total=goal, description=text, refresh=True
            )
        else:
            share = min(done / goal, 1.0)
            drawn = "█" * round(WIDTH * share) + "░" * (WIDTH - round(WIDTH * share))
            self.display.update({"text/plain": f"{drawn} {share:4.0%}  {text}"}, raw=True)
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
        assert self.first is not None
        seconds = self.progress.training_seconds - self.first.training_seconds
        steps = self.progress.step - self.first.step
        return f"{steps / seconds:.3g} steps/s" if seconds > 0 else ""


def _new_bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.description}"),
        console=Console(file=stream, force_terminal=True),
        auto_refresh=False,
        redirect_stdout=False,  # it would send stdout to stderr
    )
    bar.add_task("")
    bar.start()
    return bar


def _notebook_display() -> Any:
    """An updatable output of the running notebook's cell; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)
