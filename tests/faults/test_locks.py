"""A second trainer in the directory of a run is refused, and the first goes on as if alone."""

import signal

import pytest
from harness import Trainer, result_of, write_config


@pytest.mark.slow
def test_resuming_a_run_that_is_being_trained(tmp_path):
    config, out = write_config(tmp_path, steps=400), tmp_path / "out"
    with Trainer(config, tmp_path / "alone") as trainer:
        assert trainer.wait() == 0, trainer.err
    with Trainer(config, out) as first:
        assert first.tell("saved")
        first.process.send_signal(signal.SIGSTOP)  # so that it changes no files meanwhile
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for arguments in (["--resume"], []):
            with Trainer(config, out, *arguments) as second:
                assert second.wait() == 2
            (line,) = second.err
            assert f"{out}: is being trained by process {first.process.pid} on " in line
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        first.process.send_signal(signal.SIGCONT)
        assert first.wait() == 0, first.err
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()
    sums = [result_of(path)["parameters_sha256"] for path in (out, tmp_path / "alone")]
    assert sums[0] == sums[1]
