"""Data that changes under a run, and checkpoints that rot: refused, or told and gone back from."""

import json

import pytest
from harness import CHECKPOINT_EVERY, Trainer, result_of, write_config

from seqnets.data import checksum_of_text

TEXT = "the cat sat on the mat. " * 200


@pytest.fixture
def stopped(tmp_path):
    """A configuration, and the folder of a run of it that was killed at step 50."""
    config, out = write_config(tmp_path, steps=90, text=TEXT), tmp_path / "out"
    with Trainer(config, out, "--max-steps", "50") as trainer:
        assert trainer.wait() == 0, trainer.err
    return config, out


def test_data_that_changed_is_refused_and_welcome_again_when_it_is_back(stopped, tmp_path):
    config, out = stopped
    file = tmp_path / "text.txt"
    sums = [checksum_of_text(text) for text in (TEXT, TEXT + "!")]
    assert json.loads((out / "data.json").read_text()) == {str(file): sums[0]}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    file.write_text(TEXT + "!")  # and with it the alphabet
    with Trainer(config, out, "--resume") as trainer:
        assert trainer.wait() == 2
    (line,) = trainer.err
    assert f"{file}: has changed since the run began: expected SHA-256 {sums[0]}" in line
    assert line.endswith(f"got {sums[1]}")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    file.write_text(TEXT)
    with Trainer(config, out, "--resume") as trainer:
        assert trainer.wait() == 0, trainer.err


def test_a_checkpoint_that_rots_is_told_of_and_gone_back_from(stopped, tmp_path):
    config, out = stopped
    with Trainer(config, tmp_path / "straight") as trainer:
        assert trainer.wait() == 0, trainer.err
    for file in (out / "checkpoints" / "50").rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0x10
            file.write_bytes(content)
    with Trainer(config, out, "--resume") as trainer:
        assert trainer.wait() == 0, trainer.err
    assert f"from {2 * CHECKPOINT_EVERY}" in trainer.told
    damaged, _ = trainer.err
    assert f"{out / 'checkpoints' / '50'}: is damaged" in damaged
    assert damaged.endswith(f"continuing from step {2 * CHECKPOINT_EVERY}")
    assert (out / "checkpoints" / "50.damaged").is_dir()
    records = [(path / "metrics.jsonl").read_bytes() for path in (out, tmp_path / "straight")]
    assert records[0] == records[1]
    sums = [result_of(path)["parameters_sha256"] for path in (out, tmp_path / "straight")]
    assert sums[0] == sums[1]
