"""SIGTERM as schedulers send it: saved within 10 seconds, wherever it comes; status 143."""

import signal
import time

import pytest
from harness import ROOT, Trainer, result_of, strange_files, write_config

from seqnets.runs import CheckpointStore

HANGING = """
import ctypes, os, runpy, sys
from seqnets.training import evaluation

def hang(*arguments, **options):
    os.write(1, b"hanging\\n")
    lock = ctypes.CDLL(None).pthread_mutex_lock  # releases Python's: other threads run
    mutex = ctypes.create_string_buffer(128)
    lock(mutex)
    lock(mutex)  # no signal ends this

{patch}
sys.argv[0] = {script!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
EVALUATION = """
sums = evaluation.LossEvaluation.sums
evaluation.LossEvaluation.sums = lambda *given: hang() or sums(*given)
"""
COMPILATION = """
from seqnets.devices import DataParallel
DataParallel.lower = hang
"""


def hanging_program(folder, patch):
    program = folder / "hanging.py"
    program.write_text(HANGING.format(patch=patch, script=str(ROOT / "scripts" / "train_text.py")))
    return program


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path, steps=100_000)


def terminate(trainer):
    """Send SIGTERM; the exit status, and the seconds it took."""
    began = time.monotonic()
    trainer.process.send_signal(signal.SIGTERM)
    return trainer.wait(), time.monotonic() - began


def test_in_training_it_saves_and_says_so(config, tmp_path):
    out = tmp_path / "out"
    with Trainer(config, out) as trainer:
        trainer.tell("writing")
        status, seconds = terminate(trainer)
    assert status == 143
    assert seconds < 10
    (line,) = trainer.err
    assert line.startswith("stopped by SIGTERM after step ")
    assert "saved; continue with --resume" in line
    result = result_of(out)
    assert result["stopped_by_signal"] == signal.SIGTERM
    last = [word for word in trainer.told if word.startswith("at")][-1]
    assert CheckpointStore(out / "checkpoints").newest() == result["steps"] == int(last.split()[1])
    assert not strange_files(out)


@pytest.mark.parametrize(
    ("patch", "step"), [(EVALUATION, 60), (COMPILATION, 0)], ids=["evaluation", "compilation"]
)
def test_in_native_code_that_does_not_come_back(config, tmp_path, patch, step):
    out = tmp_path / "out"
    program = hanging_program(tmp_path, patch)
    with Trainer(config, out, program=program) as trainer:
        assert trainer.tell("hanging") == "hanging"
        time.sleep(0.5)  # or the signal comes before native code is entered
        status, seconds = terminate(trainer)
    assert status == 143
    assert seconds < 10
    assert trainer.err == ["stopped by SIGTERM, saved; continue with --resume"]
    assert CheckpointStore(out / "checkpoints").newest() == step
    assert not strange_files(out)
