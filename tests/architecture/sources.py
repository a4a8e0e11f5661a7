"""The source files of the package, parsed."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "seqnets"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [file for file in FILES if file.name not in ("__init__.py", "__main__.py")]


def name_of(file):
    """``seqnets/losses/__init__.py`` is ``seqnets.losses``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """The part after ``seqnets``; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def label(file):
    return str(file.relative_to(PACKAGE))


@functools.cache
def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


SHAPED = {"Float", "Int", "Bool", "Shaped", "Num", "UInt", "Key"}
EVERY_FILE = pytest.mark.parametrize("file", FILES, ids=label)
EVERY_MODULE = pytest.mark.parametrize("file", MODULES, ids=label)
