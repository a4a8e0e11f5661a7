"""The list of planted bugs fits the library; `plant.py` plants them."""

import collections
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("plant", Path(__file__).with_name("plant.py"))
plant = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plant)


@pytest.mark.parametrize("bug", plant.BUGS, ids=lambda bug: bug.what)
def test_the_text_is_there_once_and_the_tests_exist(bug):
    text = (ROOT / "seqnets" / bug.file).read_text()
    assert text.count(bug.right) == 1
    assert bug.wrong != bug.right
    for test in bug.tests:
        file, *names = test.split("::")
        source = (ROOT / "tests" / file).read_text()
        for name in names:
            assert re.search(rf"(def|class) {name}\b", source), f"{file} has no {name}"


def test_no_bug_is_listed_twice():
    assert max(collections.Counter((bug.file, bug.wrong) for bug in plant.BUGS).values()) == 1


def test_the_table_in_the_documents_is_that_of_the_list():
    assert plant.table() in (ROOT / "docs" / "testing.md").read_text()
