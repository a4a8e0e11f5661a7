"""Writes the checkpoint that later versions must be able to read, ``format-N`` beside this file.

To be run once for each new format, by the version that first writes it:

    python tests/runs/checkpoints/golden.py
"""

from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

from seqnets.runs.checkpoint_files import FORMAT, write_snapshot
from seqnets.training import Progress, Snapshot, TrainState


class Carry(NamedTuple):
    c: np.ndarray
    h: np.ndarray


def golden_state():
    """All that a state holds: nested names, several dtypes, empty arrays, values hard to keep."""
    params = {
        "cell/a.b": [np.arange(6, dtype=np.float32).reshape(2, 3) / 7, np.array([True, False])],
        "half": (np.arange(5) / 3).astype(ml_dtypes.bfloat16),
        "odd": np.array([np.nan, -0.0, -np.inf, 5e-324]),
        "empty": np.zeros((0, 4), np.float32),
        "large": np.arange(90_000, dtype=np.float32).reshape(300, 300) % 1009,
    }
    optimizer = {"loss": ({"count": np.array(3, np.int32)}, ())}
    variables = {"ema": (np.arange(3) / 7).astype(np.float16)}
    carry = Carry(np.full((2, 1), 0.1), np.array([[-7], [7]], np.int8))
    return TrainState(
        np.array(12, np.int32), params, optimizer, variables, carry, jax.random.key(5)
    )


def golden_progress():
    """Figures that a text does not hold exactly without care."""
    return Progress(
        step=12,
        training_seconds=0.1 + 0.2,
        sums={"loss": [1 / 3, 7.0]},
        gradient_norms={"loss": [1e308, 2.0**-40]},
        validation={"loss": float("nan"), "error": 0.5},
        validation_step=10,
    )


if __name__ == "__main__":
    folder = Path(__file__).parent.resolve() / f"format-{FORMAT}"
    write_snapshot(folder, Snapshot(golden_state(), golden_progress()), 0.25)
    for note in folder.rglob("commit_success.txt"):  # it only names the temporary folder
        note.unlink()
