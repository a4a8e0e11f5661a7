"""Steps that are not finite, from the configuration to the figures of the run."""

import json

import jax.numpy as jnp
import pytest
from harness import write_config

from seqnets.applications.application import fit_work
from seqnets.applications.language import language
from seqnets.config import ConfigError, load
from seqnets.data.tokenizers import CharacterTokenizer
from seqnets.runs import DirectoryStore
from seqnets.training import NonFiniteError

STEPS = {"train.steps": 60, "train.evaluate_every": 30, "train.checkpoint_every": 10}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train on a text with one bad letter: its batches have a loss that is NaN."""
    words = "the cat sat on the mat. " * 200
    config = write_config(tmp_path, steps=60, text=words[:200] + "?" + words[200:])
    (bad,) = CharacterTokenizer.from_text((tmp_path / "text.txt").read_text()).encode("?")
    real = language.language_loss

    def poisoned(*arguments, **options):
        loss_fn = real(*arguments, **options)

        def loss(params, batch, given):
            output = loss_fn(params, batch, given)
            if given.keys is None:
                return output
            met = jnp.any(batch.inputs == int(bad))
            total = jnp.where(met, jnp.nan, output.loss.total)
            return output._replace(loss=output.loss._replace(total=total))

        return loss

    monkeypatch.setattr(language, "language_loss", poisoned)

    def run(out, resume=False, **settings):
        settings = {**STEPS, **{f"train.{key}": value for key, value in settings.items()}}
        application = language.LANGUAGE
        loaded = load(application.config, config, settings)
        work = application.prepare(loaded, lambda: application.read(loaded))
        return fit_work(work, DirectoryStore(tmp_path / out), resume=resume).result

    return run


def records(folder, split):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == split]


def test_a_run_stops_and_may_be_resumed_to_skip(train, tmp_path):
    with pytest.raises(NonFiniteError, match="not finite at step "):
        train("stop")
    resumed = train("stop", resume=True, on_nonfinite="skip")
    assert resumed["skipped_steps"] == 1
    assert resumed["steps"] == 60
    skipping = train("skip", on_nonfinite="skip")
    assert skipping["parameters_sha256"] == resumed["parameters_sha256"]
    assert records(tmp_path / "skip", "train") == records(tmp_path / "stop", "train")
    assert records(tmp_path / "skip", "train")[-1]["skipped"] == 1


def test_a_run_goes_back(train, tmp_path):
    result = train("back", on_nonfinite="rollback")
    assert result["rollbacks"] == 1
    assert 1 <= result["batches_passed_by"] <= STEPS["train.checkpoint_every"]
    assert result["skipped_steps"] == 0
    (record,) = records(tmp_path / "back", "rollback")
    assert record["batches_passed_by"] == result["batches_passed_by"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("on_nonfinite", "ignore"), ("max_skips", 0), ("max_rollbacks", 0), ("spike", 0.0)],
)
def test_settings_are_checked(train, key, value):
    with pytest.raises(ConfigError, match=f"train.{key}"):
        train("wrong", **{key: value})
