"""Training in a process of its own, small enough to be killed again and again."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("child.py")
CHECKPOINT_EVERY = 20
CONFIG = """
[data]
files = ["{text}"]
steps = 8
[model]
hidden = 16
embedding = 8
dropout = 0.1
[optimizer]
schedule = "cosine"
[train]
batch_size = 4
seed = 3
report_every = 7
evaluate_every = 60
checkpoint_every = {every}
steps = {steps}
keep = 2
"""


def write_config(folder, steps, text="the cat sat on the mat. " * 200):
    """A configuration and its text; returns the path of the configuration."""
    (folder / "text.txt").write_text(text)
    config = folder / "run.toml"
    config.write_text(CONFIG.format(text=folder / "text.txt", steps=steps, every=CHECKPOINT_EVERY))
    return config


class Trainer(contextlib.AbstractContextManager):
    """A trainer at work; in ``told`` and ``err`` is what it wrote, line by line."""

    def __init__(self, config, out, *arguments, program=CHILD, prefix=(), **variables):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_COMPILATION_CACHE_DIR": str(out.parent / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(program), str(config), "--out", str(out), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=out.parent,
            start_new_session=True,
        )
        self.told, self.err = [], []
        self.news = queue.SimpleQueue()
        self.readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._keep)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._keep_unexpected)),
        ]
        for reader in self.readers:
            reader.start()

    def _read(self, stream, keep):
        with stream:
            for line in stream:
                keep(line.rstrip("\n"))
        if stream is self.process.stdout:
            self.news.put(None)

    def _keep(self, line):
        self.told.append(line)
        self.news.put(line)

    def _keep_unexpected(self, line):
        """What is on stderr beside the line that every training begins with."""
        if not line.startswith("memory of each device: "):
            self.err.append(line)

    def __exit__(self, *error):
        self.kill()

    def tell(self, word, timeout=120):
        """Wait for what it tells, and return the line; None if it ended before."""
        while (line := self.news.get(timeout=timeout)) is not None:
            if line.startswith(word):
                return line
        self.news.put(None)
        return None

    def kill(self):
        """Signal 9; whatever else was in its session goes, too."""
        if self.process.poll() is None:
            self.process.kill()
        return self.wait()

    def wait(self, timeout=120):
        """Its exit status."""
        status = self.process.wait(timeout)
        for reader in self.readers:
            reader.join()
        return status


def result_of(out):
    return json.loads((out / "result.json").read_text())


def left_behind(session):
    """Processes of a session that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def strange_files(out):
    """What a run directory should not hold when nobody is writing in it.

    The lock of a process that ended at once stays; the kernel has released it.
    """
    known = {"config.toml", "data.json", "metrics.jsonl", "result.json", "tokenizer.json", ".lock"}
    strange = [path for path in out.iterdir() if path.name not in {*known, "checkpoints"}]
    kept = (out / "checkpoints").iterdir() if (out / "checkpoints").is_dir() else ()
    return strange + [path for path in kept if not path.name.replace(".", "").isdigit()]
