"""A run that was killed before its first checkpoint needs no hand: --resume begins it anew."""

import pytest
from harness import Trainer, result_of, strange_files, write_config


def leave_nothing(out):
    pass


def leave_half_a_file(out):
    (out / ".config.toml.123.partial").write_text("[tra")


def leave_a_configuration(out):
    (out / "config.toml").write_text((out.parent / "whole" / "config.toml").read_text())
    (out / ".data.json.123.partial").write_text("{")


def leave_half_a_checkpoint(out):
    leave_a_configuration(out)
    (out / "metrics.jsonl").write_text('{"step": 7, "split": "train", "loss": 1.0}\n{"st')
    (out / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir(parents=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a configuration, and the run of it that was never killed."""
    folder = tmp_path_factory.mktemp("starts")
    config = write_config(folder, steps=30)
    with Trainer(config, folder / "whole") as trainer:
        assert trainer.wait() == 0, trainer.err
    return folder


@pytest.mark.parametrize(
    "leave", [leave_nothing, leave_half_a_file, leave_a_configuration, leave_half_a_checkpoint]
)
def test_resumed_it_is_the_run_that_was_never_killed(whole, leave):
    out = whole / leave.__name__
    out.mkdir()
    leave(out)
    with Trainer(whole / "run.toml", out, "--resume") as trainer:
        assert trainer.wait() == 0, trainer.err
    told, _ = trainer.err
    assert told.endswith("there is no checkpoint yet; starting from the beginning")
    assert (out / "metrics.jsonl").read_bytes() == (whole / "whole/metrics.jsonl").read_bytes()
    sums = [result_of(path)["parameters_sha256"] for path in (out, whole / "whole")]
    assert sums[0] == sums[1]
    assert not strange_files(out)


def test_other_peoples_files_are_not_begun_in(whole):
    out = whole / "other"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with Trainer(whole / "run.toml", out, "--resume") as trainer:
        assert trainer.wait() == 2
    assert "no config.toml" in trainer.err[0]
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
