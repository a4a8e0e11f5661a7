"""Soak: train for an hour with random kills and resumes; memory flat, nothing left behind.

    python tests/faults/soak.py --minutes 60

Memory, open files and threads are read every second. Of each process the first half minute is
left out, in which caches fill. Memory is flat where in every process the last fifth is within 2%
of the first, and the last fifth of the resumed processes not above their first by more than that.
Exits with 1 where something is not as it should be.
"""

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness import Trainer, left_behind, strange_files, write_config

WARM_SECONDS = 30
TOLERANCE = 0.02
SPARE = 5  # files or threads of a checkpoint in flight; lost at each, they would be hundreds
OFTEN = ("train.report_every=500", "train.evaluate_every=2000", "train.checkpoint_every=200")


def soak(folder, seconds, lifespan, seed=0):
    """Train for so long, killing processes of about ``lifespan`` seconds; returns a report."""
    random_ = random.Random(seed)
    config, out = write_config(folder, steps=10**7), folder / "out"
    settings = [part for setting in OFTEN for part in ("--set", setting)]
    end, lives, problems = time.monotonic() + seconds, [], []
    while (left := end - time.monotonic()) > 0:
        resume = ("--resume",) if out.is_dir() else ()
        with Trainer(config, out, *settings, *resume) as trainer:
            if trainer.tell("from") is None:
                raise SystemExit("\n".join(trainer.err))
            lives.append(watch(trainer, min(random_.uniform(0.5, 1.5) * lifespan, left)))
            if end - time.monotonic() > 0:
                trainer.kill()
            else:
                trainer.process.send_signal(signal.SIGTERM)
                problems += [f"status {trainer.process.returncode}"] * (trainer.wait() != 143)
        problems += [f"process {pid} left" for pid in left_behind(trainer.process.pid)]
    problems += [f"file {path} left" for path in strange_files(out)]
    return report(lives, problems)


def watch(trainer, seconds):
    """Memory in MB, open files and threads of a process, once a second; for at least 60 s."""
    began, samples = time.monotonic(), []
    while time.monotonic() < began + max(seconds, 2 * WARM_SECONDS):
        time.sleep(1)
        if time.monotonic() > began + WARM_SECONDS:
            samples.append(sample(trainer.process.pid))
    return samples


def sample(pid):
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    memory = int(status["VmRSS"].split()[0]) / 1000
    return memory, len(list((process / "fd").iterdir())), int(status["Threads"])


def report(lives, problems):
    """What was seen, and what of it is wrong."""
    memory, files, threads = ([column(life, i) for life in lives] for i in range(3))
    within = [growth(values) for values in memory]
    resumed = [statistics.median(values) for values in memory[1:]]  # the first compiled
    between = growth(resumed) if len(resumed) > 1 else 0.0
    if max(map(abs, within)) > TOLERANCE:
        problems.append("memory is not flat within a process")
    if between > TOLERANCE:
        problems.append("memory grows from process to process")
    for name, lists in (("open files", files), ("threads", threads)):
        # The fewest of each fifth: a checkpoint that is being written has some for a while.
        if any(ends(values, min)[1] > ends(values, min)[0] + SPARE for values in lists):
            problems.append(f"{name} grow within a process")
    return {
        "processes": len(lives),
        "memory_mb": [round(statistics.median(values), 1) for values in memory],
        "growth_within_percent": [round(100 * part, 2) for part in within],
        "growth_between_percent": round(100 * between, 2),
        "open_files": [statistics.median(values) for values in files],
        "threads": [statistics.median(values) for values in threads],
        "problems": problems,
    }


def column(life, number):
    return [values[number] for values in life]


def ends(values, of=statistics.median):
    """Medians, or what else is asked for, of the first and the last fifth."""
    fifth = max(1, len(values) // 5)
    return of(values[:fifth]), of(values[-fifth:])


def growth(values):
    first, last = ends(values)
    return last / first - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--lifespan", type=float, default=180.0, help="of a process, in seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), 60 * arguments.minutes, arguments.lifespan)
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["problems"]))


if __name__ == "__main__":
    main()
