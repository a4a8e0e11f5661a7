"""The text trainer, telling on standard output of each checkpoint when it is finished.

``from K``, when the first step after number K is taken; ``at K`` with every step; ``writing K`` and
``saved K``, around each checkpoint.
"""

import os
import runpy
import sys
from pathlib import Path

from seqnets.runs import ProgressBar, checkpoints

write = checkpoints.write_snapshot
save = checkpoints.CheckpointStore.save


def tell(*words):
    os.write(1, f"{' '.join(map(str, words))}\n".encode())  # whole lines, from two threads


def telling_write(path, snapshot, rank):
    tell("writing", snapshot.progress.step)
    write(path, snapshot, rank)


def telling_save(self, snapshot, rank):
    save(self, snapshot, rank)
    tell("saved", snapshot.progress.step)


def telling_step(self, progress, fraction):
    if not hasattr(self, "told"):
        self.told = True
        tell("from", progress.step - 1)
    tell("at", progress.step)


checkpoints.write_snapshot = telling_write
checkpoints.CheckpointStore.save = telling_save
ProgressBar.on_step = telling_step
script = Path(__file__).parents[2] / "scripts" / "train_text.py"
sys.argv[0] = str(script)
runpy.run_path(str(script), run_name="__main__")
