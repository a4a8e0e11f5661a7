"""The reference has every public name, and the docstring of each says what its reader needs."""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from pathlib import Path

import pytest
from public_names import ROOMS, ROOT, public_names

import seqnets
from seqnets.cells import CELLS, ConvLSTM

NAMES = [one for room in ROOMS for one in public_names(room) if one.module.startswith("seqnets")]
"""Without those of other libraries."""
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|References):\n((?: +.*\n?|\n)+)", re.MULTILINE)
ARGUMENTS = re.compile(r"^  ([\w*, ]+):", re.MULTILINE)

ELEMENTARY = {
    *("hard_tanh", "linear", "log_sigmoid", "log_softmax", "sigmoid", "softmax", "tanh"),
    *("absolute_error", "gaussian", "squared_error"),
    *("constant", "decay_mask", "exponential", "reduce_on_plateau", "scale_by_progress", "sgd"),
}
"""Functions and schedules without an author."""


def found(one):
    return getattr(importlib.import_module(f"seqnets.{one.room}"), one.name)


FUNCTIONS = [one for one in NAMES if inspect.isfunction(found(one))]
CLASSES = [one for one in NAMES if inspect.isclass(found(one))]
OTHERS = [one for one in NAMES if one not in FUNCTIONS and one not in CLASSES]


def each(names):
    return pytest.mark.parametrize("one", names, ids=lambda one: one.path)


def sections(thing):
    """The sections of a docstring by their titles."""
    return dict(SECTION.findall((inspect.getdoc(thing) or "") + "\n"))


def raises(function):
    """Whether the body raises or checks; what functions inside of it do counts for them alone."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("check_"):
            return True
        nodes += ast.iter_child_nodes(node)
    return False


def test_every_room_has_a_page_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert not [room for room in ROOMS if f"reference/{room}.md" not in navigation]


def test_all_that_the_package_offers_is_in_the_reference():
    pages = (ROOT / "docs" / "reference" / "estimators.md").read_text()
    known = {one.name for one in NAMES} | set(ROOMS)
    offered = {name for name in dir(seqnets) if not name.startswith("_")}
    offered -= {"importlib", "annotations", "TYPE_CHECKING", "Any"}
    missing = {name for name in offered - known if f"::: seqnets.{name}" not in pages}
    inner = {name for name in missing if inspect.ismodule(getattr(seqnets, name))}
    assert missing == inner, "names without an entry"


@each(FUNCTIONS)
def test_a_function_documents_its_arguments_result_and_errors(one):
    function, parts = found(one), sections(found(one))
    named = set(re.findall(r"\w+", " ".join(ARGUMENTS.findall(parts.get("Args", "")))))
    signature = inspect.signature(function)
    assert not set(signature.parameters) - named, "arguments without a line"
    summarized = not signature.parameters and inspect.getdoc(function).startswith("Return ")
    if signature.return_annotation not in (None, "None"):
        assert {"Returns", "Yields"} & set(parts) or summarized, "the result is not documented"
    if raises(function):
        assert "Raises" in parts, "it raises, and does not say when"


@each(CLASSES)
def test_a_class_and_its_methods_are_documented(one):
    kind = found(one)
    assert kind.__doc__, "no docstring"
    for name, member in vars(kind).items():
        method = inspect.isfunction(member) and name not in inspect.get_annotations(kind)
        if method and not name.startswith("_"):
            assert inspect.getdoc(getattr(kind, name)), f"{name} has no docstring"


@each(OTHERS)
def test_a_constant_or_a_type_is_documented_below_its_assignment(one):
    module = importlib.import_module(one.module)
    body = ast.parse(Path(module.__file__).read_text("utf-8")).body
    for node, after in itertools.pairwise(body):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(target, "id", None) == one.name for target in targets):
            assert isinstance(after, ast.Expr)
            assert isinstance(after.value, ast.Constant)
            return
    raise AssertionError(f"{one.path} is not assigned in {one.module}")


PUBLISHED = [one for one in FUNCTIONS if one.room in ("activations", "losses", "optimizers")]
PUBLISHED += [one for one in CLASSES if found(one) in (*CELLS.values(), ConvLSTM)]


@each(PUBLISHED)
def test_what_was_published_names_its_source(one):
    assert "References" in sections(found(one)) or one.name in ELEMENTARY
