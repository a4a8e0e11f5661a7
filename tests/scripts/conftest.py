"""Running the scripts inside the session, and small inputs to run them on."""

import functools
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

TEXT = ("model.hidden=12", "model.embedding=6", "train.batch_size=4", "data.steps=16")
SERIES = ("model.hidden=8", "train.batch_size=8", "data.context=12", "data.profile=2")


class Finished(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, own_interrupts):
    """Run ``scripts/NAME.py`` with arguments; everything but the process is as a user has it."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        return Finished(int(stop.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def train_text(run, files):
    """``train_text(*arguments)``: the trainer on the small text, with a small model."""
    return functools.partial(
        run, "train_text", files / "empty.toml", "--data", files / "text.txt", *_set(TEXT)
    )


@pytest.fixture
def train_forecast(run, files):
    """``train_forecast(*arguments)``: the trainer on the small series, with a small model."""
    return functools.partial(
        run, "train_forecast", files / "empty.toml", "--data", files / "history.csv",
        "--horizon", 6, "--season", 6, *_set(SERIES),
    )  # fmt: skip


def _set(values):
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder of inputs: a text that repeats, four seasonal series and what came after them."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 200, "utf-8")
    (folder / "empty.toml").write_text("")
    rng = np.random.default_rng(0)
    history, future = ["unique_id,ds,y"], ["unique_id,ds,y"]
    for name in "abcd":
        level = rng.uniform(20, 60)
        for step in range(70):
            value = level + 5 * np.sin(2 * np.pi * step / 6) + rng.normal(0, 0.5)
            (history if step < 64 else future).append(f"{name},{step},{value:.4f}")
    (folder / "history.csv").write_text("\n".join(history) + "\n")
    (folder / "future.csv").write_text("\n".join(future) + "\n")
    return folder
