"""The text scripts end to end on a small text: it is learnt, repeated, and resumed exactly."""

import json
import os
import signal
import tomllib

import numpy as np
import pytest

from seqnets.runs import MetricsFile


def records(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def result(path):
    return json.loads((path / "result.json").read_text())


def test_from_training_to_text(train_text, run, files, tmp_path):
    out = tmp_path / "run"
    trained = train_text("--out", out, "--max-steps", 150, "--set", "train.evaluate_every=75",
                         "--set", "optimizer.learning_rate=0.02")  # fmt: skip
    assert trained.status == 0, trained.err
    assert trained.out == ""
    assert trained.err.splitlines()[-1] == f"trained 150 steps; the run is in {out}"

    # Four characters a word and a period of 24: the text can be known by heart.
    validation = [r["nats"] for r in records(out) if r["split"] == "validation"]
    assert len(validation) == 2
    assert validation[1] < validation[0]
    assert validation[1] < 0.5
    assert {r["step"] for r in records(out) if r["split"] == "train"} == {50, 100, 150}
    assert result(out)["validation_nats"] == validation[1]
    assert result(out)["steps"] == 150
    assert set(os.listdir(out)) == {
        "checkpoints", "config.toml", "data.json", "metrics.jsonl", "result.json", "tokenizer.json",
    }  # fmt: skip
    resolved = tomllib.loads((out / "config.toml").read_text())
    assert resolved["train"]["max_steps"] == 150
    assert os.path.isabs(resolved["data"]["files"][0])

    measured = run("evaluate_text", out, "--data", files / "text.txt")
    assert measured.status == 0, measured.err
    (line,) = measured.out.splitlines()
    figures = json.loads(line)
    assert set(figures) == {
        "nats", "bits_per_character", "perplexity", "tokens", "tokens_per_second",
        "nats_from_fresh_state", "unseen_share",
    }  # fmt: skip
    assert figures["tokens"] == 24 * 200 - 1
    assert figures["nats"] < 0.5
    np.testing.assert_allclose(figures["perplexity"], np.exp(figures["nats"]))
    np.testing.assert_allclose(figures["bits_per_character"], figures["nats"] / np.log(2))

    arguments = (out, "--prompt", "the cat sat", "--tokens", 40)
    greedy = run("generate_text", *arguments, "--temperature", 0)
    assert greedy.status == 0, greedy.err
    assert greedy.out == ("the cat sat on the mat. " * 3)[: 11 + 40] + "\n"
    hot = run("generate_text", *arguments, "--temperature", 3, "--seed", 1)
    assert hot.out == run("generate_text", *arguments, "--temperature", 3, "--seed", 1).out
    assert hot.out != run("generate_text", *arguments, "--temperature", 3, "--seed", 2).out
    only = run("generate_text", *arguments, "--temperature", 3, "--top-k", 1)
    assert only.out == greedy.out
    free = run("generate_text", out, "--prompt", "", "--tokens", 40, "--temperature", 0)
    assert free.status == 0, free.err
    assert len(free.out) == 40 + 1
    assert "the cat sat on the mat. " in free.out


@pytest.mark.filterwarnings("always:.*did not occur in training")
def test_unseen_characters_are_said_in_one_line(train_text, run, files, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other.txt"
    assert train_text("--out", out, "--max-steps", 1).status == 0
    other.write_bytes((files / "text.txt").read_bytes().replace(b". ", b"\r\n"))
    measured = run("evaluate_text", out, "--data", other)
    assert measured.status == 0
    (line,) = measured.err.splitlines()
    told = "warning: text: 8.33% of its characters did not occur in training: '\\n', '\\r'; they"
    assert told in line
    assert json.loads(measured.out)["unseen_share"] == 2 / 24
    written = run("generate_text", out, "--prompt", "a dog", "--tokens", 3)
    assert written.status == 0
    (line,) = written.err.splitlines()
    assert "warning: prompt: 40% of its characters did not occur in training: 'd', 'g'" in line
    assert len(written.out) == 5 + 3 + 1


def test_the_same_seed_twice_and_another(train_text, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        varied = ("--set", f"train.seed={seed}", "--set", "model.dropout=0.2")
        common = ("--max-steps", 12, "--set", "train.report_every=4")
        done = train_text("--out", tmp_path / name, *common, *varied)
        assert done.status == 0, done.err
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert records(tmp_path / "a") != records(tmp_path / "c")
    first, second = result(tmp_path / "a"), result(tmp_path / "b")
    assert first["parameters_sha256"] == second["parameters_sha256"]


def test_stopping_and_resuming_is_going_straight_on(train_text, tmp_path):
    common = ("--set", "train.report_every=5", "--set", "model.dropout=0.2")
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    assert train_text("--out", straight, "--max-steps", 20, *common).status == 0
    assert train_text("--out", halved, "--max-steps", 10, *common).status == 0
    half = result(halved)["parameters_sha256"]
    resumed = train_text("--out", halved, "--max-steps", 20, "--resume", *common)
    assert resumed.status == 0, resumed.err
    assert result(halved)["parameters_sha256"] == result(straight)["parameters_sha256"] != half
    train = [[r for r in records(p) if r["split"] == "train"] for p in (straight, halved)]
    assert train[0] == train[1]


@pytest.mark.parametrize(
    "out", ["../runs/../runs/./x", "link/x//", "linked run", "größe '文字' 🙂/[a]*?\\c", "~/-x"]
)
def test_a_run_may_be_anywhere(train_text, run, tmp_path, monkeypatch, out):
    """Every path that a shell hands on: begun, resumed, and used from another folder."""
    here = tmp_path / "here"
    (tmp_path / "elsewhere" / "run").mkdir(parents=True)
    here.mkdir()
    (here / "link").symlink_to("../elsewhere")
    (here / "linked run").symlink_to(tmp_path / "elsewhere" / "run")
    monkeypatch.chdir(here)
    options = ("--set", "train.checkpoint_every=1", "--set", "model.hidden=4")
    for resumed in ((), ("--resume",)):
        done = train_text(f"--out={out}", "--max-steps", 1 + len(resumed), *options, *resumed)
        assert done.status == 0, done.err
    assert result(here / out)["steps"] == 2
    used = ("--prompt", "the ", "--tokens", 2)
    written = run("generate_text", *used, "--", out)
    assert written.status == 0, written.err
    (tmp_path / "other" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other" / "folder")
    again = run("generate_text", f"../../here/{out}", *used)
    assert again.out == written.out


def test_a_signal_saves_and_leaves_with_a_message(train_text, tmp_path, monkeypatch):
    """As Ctrl-C at step 10, seen by a hook that every run has."""
    seen = MetricsFile.on_record

    def interrupt(self, record):
        seen(self, record)
        if record["step"] == 10 and record["split"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    out, straight = tmp_path / "run", tmp_path / "straight"
    common = ("--max-steps", 30, "--set", "train.report_every=5")
    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "on_record", interrupt)
        stopped = train_text("--out", out, *common)
    assert stopped.status == 130
    assert "stopped by SIGINT after step" in stopped.err
    assert "--resume" in stopped.err
    assert result(out)["steps"] < 30
    assert train_text("--out", out, "--resume", *common).status == 0
    assert train_text("--out", straight, *common).status == 0
    assert result(out)["parameters_sha256"] == result(straight)["parameters_sha256"]


def test_a_run_bounded_by_seconds(train_text, tmp_path):
    done = train_text("--out", tmp_path / "run", "--max-seconds", 0.5)
    assert done.status == 0, done.err
    ended = result(tmp_path / "run")
    assert 0.5 <= ended["training_seconds"] < 10  # one step may be slow on a busy machine
    assert ended["steps"] >= 1


def test_a_loss_that_breaks_down_is_told_in_one_line(train_text, tmp_path):
    done = train_text("--out", tmp_path / "run", "--max-steps", 50, "--set", "optimizer.name=sgd",
                      "--set", "optimizer.learning_rate=1e38", "--set", "optimizer.warmup=0",
                      "--set", "optimizer.clip_norm=0")  # fmt: skip
    assert done.status == 1
    memory, line = done.err.splitlines()
    assert memory.startswith("memory of each device: parameters ")
    assert "not finite at step" in line


@pytest.mark.parametrize("tokenizer", ["byte", "character"])
def test_texts_beyond_ascii(run, tmp_path, tokenizer, files):
    text = tmp_path / "text.txt"
    text.write_text("äöü 漢字 🙂 " * 120, "utf-8")
    out = tmp_path / "run"
    done = run("train_text", files / "empty.toml", "--data", text, "--out", out, "--max-steps", 2,
               "--set", f"data.tokenizer={tokenizer}", "--set", "model.hidden=4",
               "--set", "train.batch_size=2", "--set", "data.steps=8")  # fmt: skip
    assert done.status == 0, done.err
    figures = json.loads(run("evaluate_text", out, "--data", text).out)
    ratio = figures["bits_per_character"] * np.log(2) / figures["nats"]
    characters = 120 * 9 - 1
    expected = figures["tokens"] / characters
    np.testing.assert_allclose(ratio, expected)
    assert run("generate_text", out, "--prompt", "ä", "--tokens", 5).status == 0
