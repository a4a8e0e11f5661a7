"""The examples are short, each one program that ends with a check; `test_pages.py` runs them."""

import ast

import pytest
from pages import DOCS, blocks_of

PAGES = sorted((DOCS / "examples").glob("*.md"))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def block_of(page):
    """The one Python block of a page; the test fails if there are several."""
    (block,) = (block for block in blocks_of(page) if block.language == "python")
    return block.code


def filled_lines(text):
    return sum(bool(line.strip()) for line in text.splitlines())


def test_the_examples_are_found():
    expected = {"ragged_classification", "attention", "ctc", "gan", "gated_cell", "linear_cell"}
    assert expected <= {page.stem for page in PAGES}


@EVERY_PAGE
def test_an_example_is_short(page):
    code = block_of(page)
    prose = page.read_text("utf-8").replace(code, "")
    assert filled_lines(code) < 60
    assert filled_lines(prose) <= 15


@EVERY_PAGE
def test_an_example_checks_what_it_learned(page):
    last = ast.parse(block_of(page)).body[-1]
    assert isinstance(last, ast.Assert), f"{page.name} ends without a check"
