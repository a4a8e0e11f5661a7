"""The keys of a configuration as tables, read from its sections and their docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
import typing
from typing import Any

import msgspec

ATTRIBUTES = re.compile(r"^Attributes:\n((?: +.*\n?|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^  (\w[\w, ]*):(.*(?:\n    .*)*)", re.MULTILINE)
PATH = re.compile(r"`(seqnets(?:\.\w+){2})`")
WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "none"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def keys_of(path: str) -> str:
    """The tables of a configuration, one per section; ``path`` is that of its class."""
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(kind)
    default = kind()
    sections = [one.name for one in dataclasses.fields(kind)]
    return "\n\n".join(table(one, hints[one], getattr(default, one)) for one in sections)


def section_of(path: str) -> str:
    """The table of one section."""
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return "\n".join(table("", kind, kind()).split("\n")[2:])


def table(name: str, section: type, default: Any) -> str:
    """The keys of one section: type, default, whether they may change on resume, meaning."""
    meanings = described(section)
    hints = typing.get_type_hints(section, include_extras=True)
    rows = [
        f"### `[{name}]`",
        "",
        "| Key | Type | Default | Resume | Meaning |",
        "|---|---|---|---|---|",
    ]
    for one in dataclasses.fields(section):
        value = toml(getattr(default, one.name))
        change = "yes" if one.metadata.get("may_change") else ""
        meaning = meanings.get(one.name, "").replace("|", "\\|").replace("``", "`")
        meaning = PATH.sub(r"[`\1`][\1]", meaning)
        rows.append(f"| `{one.name}` | {words(hints[one.name])} | {value} | {change} | {meaning} |")
    return "\n".join(rows)


def described(section: type) -> dict[str, str]:
    """The meaning of each field, from the docstrings of a section and of those it extends."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        doc = inspect.cleandoc(kind.__doc__ or "") if dataclasses.is_dataclass(kind) else ""
        for attributes in ATTRIBUTES.findall(doc + "\n"):
            for names, text in ENTRY.findall(attributes):
                plain = " ".join(text.split())
                found |= {name.strip(): plain for name in names.split(",")}
    return found


def words(hint: Any) -> str:
    """A type in words: ``int | None`` with a bound is "integer ≥ 1, or none"."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *details = typing.get_args(hint)
        bounds = [
            f"{sign} {getattr(meta, bound):g}"
            for meta in details
            if isinstance(meta, msgspec.Meta)
            for bound, sign in BOUNDS.items()
            if getattr(meta, bound) is not None and getattr(meta, bound) != 2**31
        ]
        return " ".join([words(kind), *(" and ".join(bounds),)]).strip()
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{toml_text(value)}`" for value in typing.get_args(hint))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        none = ["none"] if len(kinds) < len(typing.get_args(hint)) else []
        return ", or ".join([*dict.fromkeys(words(kind) for kind in kinds), *none])
    if dataclasses.is_dataclass(hint):
        return "table"
    origin = typing.get_origin(hint) or hint
    if origin in (list, tuple):
        inner = [kind for kind in typing.get_args(hint) if kind is not Ellipsis]
        return f"list of {words(inner[0])}s" if inner else "list"
    return WORDS.get(origin, "table")


def toml(value: Any) -> str:
    """A default as it would stand in a file; none where there is nothing to write."""
    return "" if value is None else f"`{toml_text(value)}`"


def toml_text(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_text(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
