"""The public names of the library, read from its source: what the reference has to show."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("activations", "baselines", "cells", "data", "decoding", "devices", "heads", "initializers"),
    *("interop", "losses", "metrics", "modules", "optimizers", "plots", "recurrence", "reduction"),
    *("runs", "training"),
)
"""Each has a page in the reference."""


class Public(NamedTuple):
    """One public name."""

    room: str
    name: str
    module: str
    """Where it is defined."""

    @property
    def path(self) -> str:
        """Where a user imports it from."""
        return f"seqnets.{self.room}.{self.name}"


def public_names(room: str) -> list[Public]:
    """The names of a room in the order of its source: re-exports of a package, or ``__all__``."""
    package = ROOT / "seqnets" / room / "__init__.py"
    if not package.exists():
        module = importlib.import_module(f"seqnets.{room}")
        return [Public(room, name, module.__name__) for name in module.__all__]
    return [
        Public(room, alias.name, node.module)
        for node in ast.parse(package.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname == alias.name
    ]


def summary(public: Public) -> str:
    """The first line of its docstring; a constant or a type has it below its assignment."""
    module = importlib.import_module(public.module)
    found = getattr(module, public.name)
    if not inspect.isclass(found) and not inspect.isroutine(found):
        return _below_assignment(module, public.name)
    return (inspect.getdoc(found) or "").split("\n")[0]


def _below_assignment(module: ModuleType, name: str) -> str:
    body = ast.parse(inspect.getsource(module)).body
    for node, after in itertools.pairwise(body):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets):
            text = getattr(getattr(after, "value", None), "value", "")
            return text.split("\n")[0] if isinstance(text, str) else ""
    return ""
