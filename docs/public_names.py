"""The public names of the library, read from its source: what the reference has to show."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
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
    """The first line of its docstring; empty where the object cannot have one."""
    found = getattr(importlib.import_module(f"seqnets.{public.room}"), public.name)
    if isinstance(found, (dict, tuple, str, int, float)):
        return ""
    return (getattr(found, "__doc__", None) or "").strip().split("\n")[0]
