"""The README's library example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_and_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text
    printed = capsys.readouterr().out
    assert re.fullmatch(r"loss \d+\.\d+, gradient norm \d+\.\d+\n", printed)
    first, _ = names["loss_fn"](names["params"], (), names["batch"], None)
    assert names["info"].loss.mean() < 0.9 * first.mean()
