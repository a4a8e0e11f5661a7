"""What docstrings need on the site: links, and examples as code.

`LSTM` in single backticks leads to the entry of ``seqnets.cells.LSTM``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from public_names import ROOMS, public_names

NAMES = [one for room in ROOMS for one in public_names(room) if one.module.startswith("seqnets")]
FIRST = re.compile(r"Returns:\n[^\n]*")
"""The line in which griffe takes a colon as the end of a type, inside of code too."""
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
NAME = re.compile(r"(?<!`)`([\w.]+)`(?!`)")


class Links(griffe.Extension):
    """Replaces names in single backticks by links, where they are public names of the library."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")  # as griffe has it
            text = FIRST.sub(lambda found: found[0].replace('": ', '":\u00a0'), text)
            text = ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
            room = [*obj.path.split("."), ""][1]
            obj.docstring.value = NAME.sub(lambda found: _link(found[0], found[1], room), text)


def _link(text: str, name: str, room: str) -> str:
    """A link to what a name means in a room: its own name, else that of the only other room."""
    paths = [one.path for one in NAMES if name in (one.name, one.path)]
    own = [path for path in paths if path.split(".")[1] == room]
    chosen = own or paths
    return f"[{text}][{chosen[0]}]" if len(chosen) == 1 else text
