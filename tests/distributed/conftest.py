"""Several processes on this machine, two CPU devices each, that train one small model together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIMIT = 240  # seconds for a run to end: far more than it needs, on a machine that does much else
CONFIG = """
[data]
steps = 16
[model]
hidden = 12
embedding = 6
dropout = 0.3
[train]
batch_size = 8
steps = 200
report_every = 1
evaluate_every = 1000
checkpoint_every = 1000
"""


LATE = """
import runpy, sys, time
from seqnets.training.parallel import DataParallel

train_step = DataParallel.train_step
DataParallel.train_step = lambda *arguments: (time.sleep(35), train_step(*arguments))[1]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Together:
    """Processes started alike; all are gone when the test is over."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    @staticmethod
    def free_port():
        """A port that nobody listens at."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def start(self, count, *arguments, devices=2, environments=None, late=None):
        """Start processes that meet at a free port, or by the variables of ``environments``.

        The process numbered ``late`` takes 35 seconds longer to compile its step.
        """
        here = f"127.0.0.1:{self.free_port()}"
        for number in range(count):
            meet = ("--coordinator", here, "--processes", count, "--process-id", number)
            if environments is not None:
                meet = ("--distributed",)
            variables, program = (environments or {}).get(number), LATE * (number == late)
            self._start(*arguments, *meet, devices=devices, more=variables, program=program)
        return self.running

    def alone(self, *arguments, devices):
        """One process without any other."""
        self._start(*arguments, devices=devices)
        return self.end()[0]

    def _start(self, *arguments, devices, more=None, program=""):
        given = ("--data", self.folder / "text.txt", *arguments)
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **(more or {})}
        process = subprocess.Popen(
            [sys.executable, *(("-c", program) if program else ()), str(SCRIPTS / "train_text.py"),
             str(self.folder / "config.toml"), *map(str, given)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(process)

    def end(self, limit=LIMIT):
        """``(status, out, err)`` of each at its end, without the line on memory."""
        until = time.monotonic() + limit
        ends = []
        for process in self.running:
            out, err = process.communicate(timeout=max(0.1, until - time.monotonic()))
            err = re.sub("^memory of each device: .*\n", "", err, flags=re.MULTILINE)
            ends.append((process.returncode, out, err))
        self.running = []
        return ends

    def wait_for(self, path, lines):
        """Wait until a file has so many lines."""
        until = time.monotonic() + LIMIT
        while not path.exists() or path.read_text().count("\n") < lines:
            assert time.monotonic() < until, f"{path}: not {lines} lines within {LIMIT} s"
            assert all(p.poll() is None for p in self.running), self.end()
            time.sleep(0.05)

    def stop(self):
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def together(tmp_path):
    """``together.start(2, *arguments)`` and ``together.end()``."""
    # Not periodic: no two rows of a batch may be alike.
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "rat"], 2000)
    (tmp_path / "text.txt").write_text(" ".join(words), "utf-8")
    (tmp_path / "config.toml").write_text(CONFIG)
    processes = Together(tmp_path)
    yield processes
    processes.stop()
