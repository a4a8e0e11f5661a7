"""Notebooks from the tutorials: each page of docs/tutorials becomes one in docs/notebooks.

    python docs/make_notebooks.py    # writes them, with the outputs of a run

A block of ``python`` becomes a cell, and a block of ``sh`` becomes a cell of bash. Outputs that the
page shows are left out, since the notebook has its own.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

DOCS = Path(__file__).parent
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
TUNED = ("JAX_", "XLA_")
"""How variables of the environment begin that the tests set, and readers do not."""
FENCE = re.compile(r"^```(python|sh|text)([^\n]*)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def notebook_of(page: Path) -> nbformat.NotebookNode:
    """The notebook of a page, not yet run."""
    cells, text, at = [], page.read_text("utf-8"), 0
    for found in FENCE.finditer(text):
        language, info, code = found.groups()
        if language == "text" and info:
            continue  # a sample: it stays where it is, in the prose
        cells.append(new_markdown_cell(text[at : found.start()].strip()))
        at = found.end()
        if language != "text":
            magic = "%%bash\n" if language == "sh" else ""
            cells.append(new_code_cell(magic + code.strip()))
    cells.append(new_markdown_cell(text[at:].strip()))
    cells = [cell for cell in cells if cell.source]
    for number, cell in enumerate(cells):
        cell.id = f"{page.stem}-{number}"  # the same at each call
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in an empty folder; their outputs become part of the notebook.

    Raises:
      nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    environment = {name: value for name, value in os.environ.items() if name[:4] not in TUNED}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(
            notebook, timeout=600, record_timing=False, resources=resources
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress and warnings differ from machine to machine
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


def path_of(page: Path) -> Path:
    """Where the notebook of a page is."""
    return DOCS / "notebooks" / f"{page.stem}.ipynb"


def main() -> None:
    """Write all notebooks."""
    for page in TUTORIALS:
        notebook = notebook_of(page)
        run(notebook)
        path_of(page).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path_of(page))
        print(path_of(page))


if __name__ == "__main__":
    main()
