"""Every guide with an example runs, learns what it says, and uses public names alone."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import seqnets

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LIBRARIES = {"functools", "typing", "flax", "jax", "numpy", "optax", "seqnets"}


def block_of(page):
    """The one Python block of a page; the test fails if there are several."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1, f"{page.name}: expected one Python block, got {len(blocks)}"
    return blocks[0]


PAGES = [page for page in sorted(EXAMPLES.glob("*.md")) if "```python" in page.read_text("utf-8")]
FIRST = EXAMPLES / "first_training.md"
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def names_of(tree):
    """All names that code uses or defines, attributes and keyword arguments included."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


def imports_of(tree):
    """Pairs of a module and a name imported from it; the name is empty for a plain import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def test_the_guides_are_found():
    expected = {"first_training", "ragged_classification", "attention", "ctc", "gan"}
    assert expected | {"gated_cell", "linear_cell"} <= {page.stem for page in PAGES}


@EVERY_PAGE
def test_a_guide_uses_public_names_alone(page):
    tree = ast.parse(block_of(page))
    private = [name for name in names_of(tree) if re.match(r"_+[a-z]", name) and name != "__call__"]
    assert not private, f"{page.name}: {private}"
    for module, name in imports_of(tree):
        top, *rooms = module.split(".")
        assert top in LIBRARIES, f"{page.name} imports {module}"
        if top == "seqnets" and rooms:
            assert rooms in [[room] for room in dir(seqnets)], f"{page.name} imports {module}"
            assert hasattr(getattr(seqnets, rooms[0]), name), f"{page.name}: {module} has no {name}"


@EVERY_PAGE
def test_a_guide_is_short_and_plain(page):
    code = block_of(page)
    prose = page.read_text("utf-8").replace(code, "")
    assert filled_lines(code) < 60
    assert filled_lines(prose) <= 15


def filled_lines(text):
    return sum(bool(line.strip()) for line in text.splitlines())


def output_of(page, tmp_path, capsys):
    """What the example prints."""
    script = tmp_path / f"{page.stem}.py"
    script.write_text(block_of(page), "utf-8")
    runpy.run_path(str(script), run_name=page.stem)
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if p != FIRST], ids=lambda page: page.stem)
def test_a_guide_runs_and_checks_what_it_learned(page, tmp_path, capsys):
    assert output_of(page, tmp_path, capsys), f"{page.name} prints nothing"
    last = ast.parse(block_of(page)).body[-1]
    assert isinstance(last, ast.Assert), f"{page.name} ends without a check"


def test_a_first_training_takes_twelve_lines_and_learns(tmp_path, capsys):
    assert filled_lines(block_of(FIRST)) <= 12
    (loss,) = re.fullmatch(r"loss (\d\.\d+)\n", output_of(FIRST, tmp_path, capsys)).groups()
    assert float(loss) < 0.1 / 12  # a tenth of the variance of the inputs
