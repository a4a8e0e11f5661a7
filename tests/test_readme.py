"""The README's examples run as they stand."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.parent / "docs/guides/first_training.md"


def blocks(file):
    return re.findall(r"```python\n(.*?)```", file.read_text("utf-8"), re.DOTALL)


def run(code):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text
    return names


def test_the_estimators_learn(capsys):
    names = run(blocks(README)[0])
    written, figure, *table = capsys.readouterr().out.splitlines()
    assert written == " sat on the mat. "
    assert float(figure) < 1
    assert len(table) == 1 + 7
    assert names["forecaster"].result["steps"] == 20


def test_the_library_example_learns(capsys):
    names = run(blocks(README)[1])
    (loss,) = re.findall(r"loss (\d+\.\d+)\n", capsys.readouterr().out)
    assert float(loss) < 0.1 / 12
    assert names["step"].init  # a value with a start of its own
    assert [blocks(README)[1]] == blocks(GUIDE)
