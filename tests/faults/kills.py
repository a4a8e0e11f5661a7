"""Kill -9 at random moments: the run that is resumed again and again equals the one that was not.

    python tests/faults/kills.py --kills 50

A third of the kills falls into the writing of a checkpoint, a sixth into the start of the process,
the others anywhere. After each: whatever was told to be saved is there, the next process goes on
from there, no process stays behind. At the end: the same parameters and the same records, bit for
bit, and no file that does not belong there.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from harness import CHECKPOINT_EVERY, Trainer, left_behind, result_of, strange_files, write_config

from seqnets.runs import CheckpointStore

SIGKILL = -9
STEPS_A_KILL = 100
MOST_LOST = 2 * CHECKPOINT_EVERY + 2  # one being written, the next waiting for it, steps in flight
KINDS = ("writing", "any", "start", "any", "writing", "any")


def run_kills(folder, kills, seed=0):
    """Kill so many times, and hold the results against a run that was left alone.

    Returns:
      Counts of the moments met, and what was lost: a dictionary that JSON can hold.
    """
    random_ = random.Random(seed)
    config = write_config(folder, steps=STEPS_A_KILL * max(kills, 4))
    straight = folder / "straight"
    seconds = run_straight(config, straight)
    met, lost, rounds = Counter(), [], 0
    while sum(met.values()) < kills:
        out = folder / f"killed{rounds}"
        rounds += 1
        while sum(met.values()) < kills:
            before = newest(out)
            kind = KINDS[sum(met.values()) % len(KINDS)]
            with Trainer(config, out, *resume(out)) as trainer:
                moment(trainer, kind, random_, seconds)
                status = trainer.kill()
                check_life(trainer, before, out, lost)
                if status == 0:
                    break
                assert status == SIGKILL, (status, trainer.err)
                met[kind] += 1
        finish(config, out, lost)
        compare(out, straight)
    return {
        "kills": sum(met.values()),
        "moments": met,
        "rounds": rounds,
        "steps_lost": summary(lost),
    }


def summary(lost):
    return {"most": max(lost), "mean": round(sum(lost) / len(lost), 1), "lives": len(lost)}


def run_straight(config, out):
    """The run that is left alone; seconds to its first step, and of a checkpoint."""
    began = time.monotonic()
    with Trainer(config, out) as trainer:
        trainer.tell("from")
        first = time.monotonic() - began
        trainer.tell("writing")
        began = time.monotonic()
        trainer.tell("saved")
        writing = time.monotonic() - began
        assert trainer.wait() == 0, trainer.err
    return {"start": first, "writing": writing}


def resume(out):
    """As whoever starts it again would: with --resume as soon as there is a folder."""
    return ("--resume",) if out.is_dir() else ()


def moment(trainer, kind, random_, seconds):
    """Wait until it is time to kill."""
    if kind == "start":
        time.sleep(random_.uniform(0, seconds["start"]))
    elif kind == "writing":
        for _ in range(random_.randint(1, 3)):
            trainer.tell("writing")
        time.sleep(random_.uniform(0, seconds["writing"]))
    else:
        trainer.tell("from")
        time.sleep(random_.uniform(0, 6 * seconds["writing"]))


def newest(out):
    return CheckpointStore(out / "checkpoints").newest() or 0


def check_life(trainer, before, out, lost):
    """What one process told and left behind."""
    words = [line.split() for line in trainer.told]
    began, at, saved = (
        [int(step) for word, step in words if word == wanted] for wanted in ("from", "at", "saved")
    )
    assert all(step == before for step in began), f"went on from {began}, not from {before}"
    assert newest(out) >= max([before, *saved]), f"{saved} saved, found {newest(out)}"
    assert not left_behind(trainer.process.pid)
    if at:
        lost.append(max(0, at[-1] - newest(out)))
        assert lost[-1] <= MOST_LOST


def finish(config, out, lost):
    before = newest(out)
    with Trainer(config, out, *resume(out)) as trainer:
        assert trainer.wait() == 0, trainer.err
        check_life(trainer, before, out, lost)


def compare(out, straight):
    one, other = result_of(out), result_of(straight)
    for key in ("parameters_sha256", "steps", "best_step", "validation_nats"):
        assert one[key] == other[key], (key, one[key], other[key])
    assert (out / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    assert not strange_files(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = run_kills(Path(folder), arguments.kills, arguments.seed)
    print(json.dumps({**report, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
