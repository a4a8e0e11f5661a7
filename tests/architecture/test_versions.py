"""What is imported is declared, and what is declared has been run with its oldest version."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from sources import FILES, tree_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = {Requirement(text).name: Requirement(text) for text in PROJECT["dependencies"]}
OPTIONAL = {
    Requirement(text).name: Requirement(text)
    for extra in ("plot", "tensorboard", "interop", "test")
    for text in EXTRAS[extra]
}
OTHER_NAMES = {"orbax": "orbax-checkpoint", "tomli_w": "tomli-w"}
NOTEBOOK = "IPython"  # asked for only where it has been imported already: inside a notebook


def imported():
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.split(".")[0]


def test_every_import_is_declared_and_every_dependency_is_imported():
    packages = set(imported()) - sys.stdlib_module_names - {"seqnets", NOTEBOOK}
    packages = {OTHER_NAMES.get(name, name) for name in packages}
    assert packages <= DECLARED.keys() | OPTIONAL.keys()
    assert DECLARED.keys() <= packages


@pytest.mark.parametrize("name", sorted(DECLARED | OPTIONAL))
def test_the_oldest_version_is_the_one_that_is_run(name):
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    (bound,) = (DECLARED | OPTIONAL)[name].specifier
    assert bound.operator == ">="
    assert Version(bound.version) == Version(pins[name])
