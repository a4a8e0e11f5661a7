"""The reference has every public name, and the docstring of each says what its reader needs."""

import importlib
import inspect
import re

import pytest
from public_names import ROOMS, ROOT, public_names

import seqnets

NAMES = [one for room in ROOMS for one in public_names(room) if one.module.startswith("seqnets")]
"""Without those of other libraries."""
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|References):\n((?: +.*\n?|\n)+)", re.MULTILINE)
ARGUMENTS = re.compile(r"^  ([\w*, ]+):", re.MULTILINE)
PUBLISHED = (
    "losses.likelihood",
    "losses.adversarial",
    "losses.segmentation",
    "optimizers.adaptive",
)


def found(one):
    return getattr(importlib.import_module(f"seqnets.{one.room}"), one.name)


FUNCTIONS = [one for one in NAMES if inspect.isfunction(found(one))]
CLASSES = [one for one in NAMES if inspect.isclass(found(one))]
path = {"ids": lambda one: one.path}


def sections(doc):
    return dict(SECTION.findall(doc + "\n"))


def test_every_room_has_a_page_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    missing = [room for room in ROOMS if f"reference/{room}.md" not in navigation]
    assert not missing


def test_every_part_of_the_package_is_in_the_reference():
    rooms = {name for name in dir(seqnets) if inspect.ismodule(getattr(seqnets, name, None))}
    offered = {name for name in seqnets._ROOMS}
    assert offered <= set(ROOMS) & rooms | offered - rooms
    estimators = (ROOT / "docs" / "reference" / "estimators.md").read_text()
    paths = {one.name for one in NAMES} | set(ROOMS)
    for names in seqnets._NAMES.values():
        for name in names:
            assert name in paths or f"::: seqnets.{name}" in estimators


@pytest.mark.parametrize("one", FUNCTIONS, **path)
def test_a_function_documents_its_arguments_result_and_errors(one):
    function = found(one)
    doc = inspect.getdoc(function)
    parts = sections(doc)
    named = set(re.findall(r"\w+", " ".join(ARGUMENTS.findall(parts.get("Args", "")))))
    signature = inspect.signature(function)
    assert not set(signature.parameters) - named, "arguments without a line"
    if signature.return_annotation not in (None, "None"):
        assert {"Returns", "Yields"} & set(parts), "the result is not documented"
    source = inspect.getsource(inspect.unwrap(function))
    if re.search(r"\braise \w|\bcheck_\w+\(", source):
        assert "Raises" in parts, "it raises, and does not say when"


@pytest.mark.parametrize("one", CLASSES, **path)
def test_a_class_and_its_methods_are_documented(one):
    kind = found(one)
    assert kind.__doc__, "no docstring"
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            assert inspect.getdoc(getattr(kind, name)), f"{name} has no docstring"
