"""Every code block of the documentation runs, and prints what its page says."""

import ast
import importlib
import re
import sys

import pytest
from pages import RUN, blocks_of, pages, run, words
from public_names import ROOMS

PAGES = [page for page in pages() if any(block.language in RUN for block in blocks_of(page))]
LIBRARIES = {"flax", "jax", "matplotlib", "numpy", "optax", "pandas", "seqnets"}
ALLOWED = LIBRARIES | sys.stdlib_module_names
SHOWN_ONLY = {"console", "py", "text", "toml", "json"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path):
    for block, printed, shown in run(page, tmp_path):
        if shown is not None:
            assert words(printed) == words(shown), f"{page.name}, line {block.line}: {printed}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_are_of_known_languages(page):
    """Nothing escapes being run by a misspelled language."""
    fences = re.findall(r"^ *```(\w*)", page.read_text("utf-8"), re.MULTILINE)[::2]
    assert set(fences) <= {*RUN, *SHOWN_ONLY}
    assert len(fences) == len(list(blocks_of(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_uses_public_names_alone(page):
    code = "\n".join(block.code for block in blocks_of(page) if block.language == "python")
    for node in ast.walk(ast.parse(code)):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str) and re.match(r"_+[a-z]", value):
                assert value.endswith("__"), f"{page.name} uses {value}"
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        if isinstance(node, ast.ImportFrom):
            top, *rooms = node.module.split(".")
            assert top in ALLOWED, f"{page.name} imports {node.module}"
            if top == "seqnets":
                assert rooms in [[], *([room] for room in ROOMS)], node.module
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_words_are_compared_and_numbers_are_not():
    assert words("loss 0.25\n") == words("loss  1e-3")
    assert words("loss 0.25") != words("lost 0.25")


def test_a_block_that_fails_is_a_failure(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```sh\nfalse\n```\n")
    with pytest.raises(AssertionError, match="CalledProcessError"):
        run(page, tmp_path)
    page.write_text("```python\nx = 1\nprint(x / 0)\n```\n")
    with pytest.raises(AssertionError, match=r"page.md\", line 3"):
        run(page, tmp_path)


def test_blocks_share_names_and_a_folder(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 2\nopen('a', 'w').write('b')\n```\n\n"
        "```sh\ncat a\n```\n\n```text\nb\n```\n\n"
        '```python\nprint(x)\n```\n\n```text title="other"\nnothing\n```\n'
    )
    ran = run(page, tmp_path)
    assert [printed for _, printed, _ in ran] == ["", "b", "2\n"]
    assert [shown for _, _, shown in ran] == [None, "b\n", None]
