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
TEXT = """
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
FORECAST = """
[data]
horizon = 4
season = 6
context = 12
[model]
hidden = 8
[train]
batch_size = 8
steps = 60
report_every = 1
evaluate_every = 30
"""
PATCHED = """
import runpy, sys, time
from seqnets.devices import DataParallel, processes

{patch}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Together:
    """Processes started alike; all are gone when the test is over.

    Only process 0 finds the data where it is told.
    """

    def __init__(self, folder):
        self.folder = folder
        self.task = "text"
        self.running = []

    @staticmethod
    def free_port():
        """A port that nobody listens at."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    def start(
        self, count, *arguments, devices=2, environments=None, patches=None, own=None, port=None
    ):
        """Start processes that meet at a port, or by the variables of ``environments``.

        By the number of the process, ``patches`` are lines to run before the script, and ``own``
        further arguments, or None for one that never comes.
        """
        here = f"127.0.0.1:{port or self.free_port()}"
        for number in range(count):
            if own and own.get(number, ()) is None:
                continue
            meet = ("--coordinator", here, "--processes", count, "--process-id", number)
            if environments is not None:
                meet = ("--distributed",)
            data = ("--data", self.folder / "nowhere") if number else ()
            variables, patch = ((by or {}).get(number) for by in (environments, patches))
            given = (*data, *arguments, *(own or {}).get(number, ()), *meet)
            self._start(*given, devices=devices, more=variables, patch=patch)
        return self.running

    def alone(self, *arguments, devices):
        """One process without any other."""
        self._start(*arguments, devices=devices)
        return self.end()[0]

    def _start(self, *arguments, devices, more=None, patch=None):
        script, name = SCRIPTS / f"train_{self.task}.py", self.folder / self.task
        program = ("-c", PATCHED.format(patch=patch)) if patch else ()
        given = (script, f"{name}.toml", "--data", f"{name}.data", *arguments)
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **(more or {})}
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, given)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
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
    rng = np.random.default_rng(0)
    words = rng.choice(["the", "cat", "sat", "on", "a", "rat"], 2000)
    (tmp_path / "text.data").write_text(" ".join(words), "utf-8")  # no two rows are alike
    values = [rng.normal(size=length).cumsum() for length in (50, 33, 41)]
    lines = [f"{i},{t},{y}" for i, one in enumerate(values) for t, y in enumerate(one)]
    (tmp_path / "forecast.data").write_text("\n".join(["unique_id,ds,y", *lines]), "utf-8")
    (tmp_path / "text.toml").write_text(TEXT)
    (tmp_path / "forecast.toml").write_text(FORECAST)
    processes = Together(tmp_path)
    yield processes
    processes.stop()
