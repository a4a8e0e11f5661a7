"""The notebooks are the tutorials, and run."""

import json

import make_notebooks
import nbformat
import pytest

EVERY_TUTORIAL = pytest.mark.parametrize(
    "page", make_notebooks.TUTORIALS, ids=lambda page: page.stem
)


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@EVERY_TUTORIAL
def test_a_notebook_is_its_tutorial(page):
    """If it is not, run ``python docs/make_notebooks.py``."""
    stored = nbformat.read(make_notebooks.path_of(page), as_version=4)
    nbformat.validate(stored)
    assert sources(stored) == sources(make_notebooks.notebook_of(page))


@EVERY_TUTORIAL
def test_a_notebook_is_stored_with_its_outputs_and_without_errors(page):
    text = make_notebooks.path_of(page).read_text("utf-8")
    assert "/site-packages/" not in text
    outputs = [one for cell in json.loads(text)["cells"] for one in cell.get("outputs", ())]
    assert outputs
    assert not [one for one in outputs if one["output_type"] == "error"]


@pytest.mark.slow
@EVERY_TUTORIAL
def test_a_notebook_runs(page):
    make_notebooks.run(make_notebooks.notebook_of(page))
