"""The command ``seqnets``: the functions of the scripts, presets by name, one line a mistake."""

import argparse
import json
import signal
import subprocess
import sys

import jax
import pytest

from seqnets import cli, launch
from seqnets.applications.command import absolute
from seqnets.presets import find_preset, preset_names

SMALL = ("--set", "model.hidden=8", "--set", "train.batch_size=4", "--set", "data.chunk_length=8")


@pytest.fixture
def run(capsys, own_interrupts):
    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            launch.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def test_text_from_training_to_figures(run, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("the cat sat on the mat. " * 100)
    train = ("text", "train", "default", "--data", text, "--out", out, "--max-steps", 6, *SMALL)
    status, _, err = run(*train)
    assert status == 0, err
    assert err.splitlines()[-1] == f"trained 6 steps; the run is in {out}"
    status, printed, _ = run("text", "generate", out, "--prompt", "the ", "--tokens", 5)
    assert (status, printed[:4], len(printed)) == (0, "the ", 10)
    status, printed, _ = run("text", "evaluate", out, "--data", text)
    assert status == 0
    assert json.loads(printed)["tokens"] == 24 * 100 - 1
    moved = tmp_path / "elsewhere.txt"
    text.rename(moved)
    status, _, err = run(*(moved if part is text else part for part in train[:-len(SMALL) - 1]),
                         9, *SMALL, "--resume")  # fmt: skip
    assert status == 0, err
    assert json.loads((out / "data.json").read_text()).keys() == {str(moved)}


def test_forecasts_from_training_to_a_table(run, tmp_path):
    data, out = tmp_path / "series.csv", tmp_path / "run"
    rows = [f"{name},{t},{t % 6}" for name in "ab" for t in range(40)]
    data.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    status, _, err = run(
        "forecast", "train", "default", "--data", data, "--out", out, "--horizon", 3,
        "--season", 6, "--max-steps", 4, "--set", "model.hidden=4",
    )  # fmt: skip
    assert status == 0, err
    status, printed, _ = run("forecast", "predict", out, "--data", data, "--quantiles", "0.5")
    assert status == 0
    assert printed.splitlines()[0] == "unique_id,ds,q0.5"
    assert len(printed.splitlines()) == 1 + 2 * 3


def test_pictures_are_left_out_without_matplotlib(run, tmp_path, monkeypatch):
    test_forecasts_from_training_to_a_table(run, tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, printed, err = run(
        "forecast", "predict", tmp_path / "run", "--data", tmp_path / "series.csv",
        "--plot", tmp_path / "picture.png",
    )  # fmt: skip
    assert status == 0
    assert printed.startswith("unique_id,ds,")
    (line,) = err.splitlines()
    assert line.startswith("no plot: matplotlib is not installed")
    assert not (tmp_path / "picture.png").exists()


@pytest.mark.parametrize("group", launch.GROUPS)
def test_presets_are_listed_and_found(run, group):
    status, printed, _ = run(group, "configs")
    assert status == 0
    assert printed.split() == preset_names(group)
    assert {"default", "demo"} <= set(printed.split())
    for name in preset_names(group):
        assert find_preset(group, name).read_text().startswith("#")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "GROUP"),
        (("text",), "COMMAND"),
        (("txt",), "invalid choice"),
        (("text", "train"), "CONFIG"),
        (("text", "train", "shakespear"), "preset of text; did you mean 'shakespeare-2min'"),
        (("text", "train", "none.toml"), "none.toml"),
        (("forecast", "train", "default", "--set", "train.seed=a\nb"), "--set train.seed: "),
        (("text", "generate", "nowhere", "--prompt", "a"), "nowhere"),
        (("forecast", "predict", "nowhere", "--data", "none.csv"), "none.csv"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("seqnets")
    assert ": error: " in line
    assert words in line


@pytest.mark.parametrize(
    "arguments", [(), ("text",), ("forecast",), ("text", "train"), ("forecast", "predict")]
)
def test_help(run, arguments):
    status, out, _ = run(*arguments, "--help")
    assert status == 0
    assert out.startswith("usage: seqnets")


def test_a_run_knows_its_files_from_anywhere_and_streams_by_their_names(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    streams = ["-", "/dev/stdin", "/dev/fd/63"]
    assert absolute([*streams, "../a b.txt"]) == [*streams, str(tmp_path / "a b.txt")]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 15 GiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 15 bytes"),
    ],
)
def test_memory_that_runs_out_all_the_same_is_one_line(capsys, error):
    def run(arguments):
        raise error

    with pytest.raises(SystemExit, match="2"):
        cli.run_command(argparse.ArgumentParser("try"), argparse.Namespace(), run)
    assert capsys.readouterr().err == f"try: error: out of memory: {error}\n"


@pytest.mark.usefixtures("own_interrupts")
def test_ctrl_c_in_a_command_lets_it_clean_up(capsys):
    """Before and after it the process would end at once."""
    left = []
    launch.answer_interrupts()
    before = signal.getsignal(signal.SIGINT)

    def run(arguments):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # or this ends here
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            left.append("in order")

    with pytest.raises(SystemExit, match="130"):
        cli.run_command(argparse.ArgumentParser("try"), argparse.Namespace(), run)
    assert capsys.readouterr().err == "try: error: interrupted\n"
    assert left == ["in order"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_whose_output_is_no_longer_read_ends_quietly():
    command = (
        "import argparse; from seqnets import cli; cli.run_command("
        "argparse.ArgumentParser('try'), argparse.Namespace(), lambda _: print('x' * 200_000) or 0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_python_m_seqnets():
    done = subprocess.run(
        [sys.executable, "-m", "seqnets", "text", "configs"], capture_output=True, text=True
    )
    assert done.stdout.split() == preset_names("text")
