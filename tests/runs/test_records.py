"""Records that survive stops, a bar only where somebody looks, and TensorBoard's files."""

import io
import json
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from seqnets.runs import MetricsFile, ProgressBar, TensorBoard
from seqnets.training import Limits, Progress


def record(step, split="train", **values):
    return {"step": step, "split": split, **values}


def refuse(word):
    raise ValueError(f"not JSON: {word}")


def lines(path):
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_one_object_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    hook = MetricsFile(path, None)
    assert lines(path) == []
    records = [record(5, loss=0.1 + 0.2, gradient_norm=1e-300), record(5, "validation", loss=2.0)]
    for number, one in enumerate(records, 1):
        hook.on_record(one)
        assert lines(path) == records[:number]  # nothing waits for an end that may not come


def test_figures_that_are_not_finite_are_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path, None).on_record(record(1, loss=math.nan, a=math.inf, b=-math.inf, c=1e308))
    assert lines(path) == [record(1, loss=None, a=None, b=None, c=1e308)]


WHOLE = [record(5), record(10), record(10, "validation"), record(15), record(100)]


@pytest.mark.parametrize(("resume_at", "left"), [(0, 0), (4, 0), (5, 1), (10, 3), (14, 3), (99, 4)])
def test_resumed_it_goes_on_as_if_never_stopped(tmp_path, resume_at, left):
    path = tmp_path / "metrics.jsonl"
    hook = MetricsFile(path, None)
    for one in WHOLE:
        hook.on_record(one)
    expected = path.read_bytes().splitlines(keepends=True)
    resumed = MetricsFile(path, resume_at)
    assert path.read_bytes() == b"".join(expected[:left])
    for one in WHOLE[left:]:
        resumed.on_record(one)
    assert path.read_bytes() == b"".join(expected)


@pytest.mark.parametrize(
    "half",
    [b'{"step": 7, "split": "tr', b'{"step": 7, "split": "train"}', b"\xff\xfe", b"[]\n", b"{}\n"],
)
def test_half_a_line_is_cut(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path, None).on_record(record(5))
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    MetricsFile(path, 9).on_record(record(10))
    assert lines(path) == [record(5), record(10)]


def test_a_new_run_begins_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path, None).on_record(record(5))
    MetricsFile(path, None)
    assert lines(path) == []
    assert MetricsFile(tmp_path / "other.jsonl", 7).path.read_text() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def last(self):
        """What is drawn last, each time over what was there."""
        return self.getvalue().split("\r")[-1]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def draw(limits, stream, steps, seconds=0.01):
    bar = ProgressBar(limits, stream)
    progress = Progress()
    for step in range(1, steps + 1):
        progress.step, progress.training_seconds = step, step * seconds
        bar.on_step(progress, 0.0)
        bar.on_record(record(step, loss=1.25, gradient_norm=3.0))
    bar.on_record(record(steps, "validation", loss=1.5))
    bar.on_record(record(steps, "validation", error=1.5))
    bar.on_end()
    bar.on_end()


def test_a_bar_on_a_terminal():
    terminal = Terminal()
    draw(Limits(8), terminal, 8)
    shown = terminal.getvalue()
    assert "step 1/8" in shown
    for part in ("100%", "step 8/8", "loss 1.2500", "validation 1.5000", "100 steps/s"):
        assert part in terminal.last()
    assert "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize(
    ("limits", "text", "percent"),
    [
        (Limits(100, max_steps=40), "step 8/40", "20%"),
        (Limits(100, max_seconds=32.0), "step 8  16/32 s", "50%"),
        (Limits(4, max_seconds=8.0), "step 8  16/8 s", "100%"),
    ],
)
def test_the_bar_fills_up_towards_the_limit(limits, text, percent):
    terminal = Terminal()
    draw(limits, terminal, 8, seconds=2.0)
    assert text in terminal.last()
    assert percent in terminal.last()


def test_no_bar_without_a_terminal(capsys):
    stream = io.StringIO()
    draw(Limits(8), stream, 8)
    assert stream.getvalue() == ""
    draw(Limits(8), None, 8)
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_on_stderr_and_leaves_stdout_alone(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = ProgressBar(Limits(8))
    bar.on_step(Progress(step=1), 0.0)
    print("a result")
    bar.on_end()
    assert capsys.readouterr().out == "a result\n"
    assert "step 1/8" in terminal.getvalue()
    assert "a result" not in terminal.getvalue()


class Notebook(ModuleType):
    """IPython as far as the bar needs it: what is displayed, and each time it changes."""

    def __init__(self, shell):
        super().__init__("IPython")
        self.display = ModuleType("IPython.display")
        self.display.display = self._display
        self.get_ipython = lambda: shell
        self.shown = []

    def _display(self, data, *, raw, display_id):
        assert raw
        assert display_id is True
        self.update(data, raw=raw)
        return self

    def update(self, data, *, raw):
        assert raw
        self.shown.append(data["text/plain"])


def notebook(monkeypatch, shell):
    """Within a program in which IPython is loaded, with that shell."""
    ipython = Notebook(shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return ipython


KERNEL = SimpleNamespace(kernel=object())


def test_a_bar_in_a_notebook(monkeypatch):
    """It needs no widgets, and writes nothing to a stream."""
    ipython, stream = notebook(monkeypatch, KERNEL), io.StringIO()
    draw(Limits(8, max_steps=16), stream, 8)
    for part in ("50%", "step 8/16", "loss 1.2500", "validation 1.5000", "100 steps/s"):
        assert part in ipython.shown[-1]
    assert ipython.shown[-1].count("█") == ipython.shown[-1].count("░") == 15
    assert "step 1/16" in ipython.shown[1]
    assert stream.getvalue() == ""


def test_a_bar_in_a_notebook_is_never_more_than_full(monkeypatch):
    ipython = notebook(monkeypatch, KERNEL)
    draw(Limits(4, max_seconds=8.0), io.StringIO(), 8, seconds=2.0)
    assert "100%" in ipython.shown[-1]
    assert ipython.shown[-1].count("█") == 30


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "in a terminal"])
def test_ipython_without_a_notebook_has_no_display(monkeypatch, shell):
    ipython = notebook(monkeypatch, shell)
    draw(Limits(8), io.StringIO(), 8)
    assert ipython.shown == []


def test_ipython_in_a_terminal_has_the_bar_of_a_terminal(monkeypatch):
    ipython, terminal = notebook(monkeypatch, SimpleNamespace()), Terminal()
    draw(Limits(8), terminal, 8)
    assert "step 8/8" in terminal.last()
    assert ipython.shown == []


def test_a_run_left_before_its_first_step_has_no_bar():
    terminal = Terminal()
    ProgressBar(Limits(8), terminal).on_end()
    assert terminal.getvalue() == ""


def test_tensorboard_gets_every_figure(tmp_path):
    hook = TensorBoard(tmp_path / "board", resume_at=4)
    hook.on_record(record(5, loss=1.5, gradient_norm=2.0))
    hook.on_record(record(5, "validation", loss=0.5))
    hook.on_end()
    (file,) = (tmp_path / "board").iterdir()
    assert {
        ("train/loss", 5, 1.5),
        ("train/gradient_norm", 5, 2.0),
        ("validation/loss", 5, 0.5),
    } == (scalars(file))


def scalars(file):
    """The points in a file of events: records of length (8), check (4), bytes, check (4)."""
    from tensorboardX.proto.event_pb2 import Event

    content, at, found = file.read_bytes(), 0, set()
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        found |= {(v.tag, event.step, v.simple_value) for v in event.summary.value}
        at += 16 + size
    return found


def test_without_tensorboard_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "seqnets\[tensorboard\]"'):
        TensorBoard(tmp_path)
