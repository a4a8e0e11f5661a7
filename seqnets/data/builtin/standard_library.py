"""Built-in text: the source code of Python's standard library, present on every machine."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seqnets.data.errors import DataError
from seqnets.data.text import TextSplit

__all__ = ["SourceFile", "SourceSplit", "source_split", "standard_library"]

EXCLUDED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",  # generated tables, a third of which are almost identical
        "idle_test",
        "pydoc_data",  # generated
        "site-packages",
        "test",
        "tests",
    }
)
EXCLUDED_STARTS = ("_sysconfigdata", "_sysconfig_vars", "config-", "sitecustomize", "usercustomize")
"""Prefixes of files and folders that differ from machine to machine."""


class SourceFile(NamedTuple):
    """A source file: its path relative to the library's folder, with slashes, and its text."""

    path: str
    text: str


class SourceSplit(NamedTuple):
    """Files for training and files for validation, each sorted by path."""

    train: list[SourceFile]
    validation: list[SourceFile]


def standard_library() -> TextSplit:
    """Source code of the running Python's standard library, with whole files held out.

    About one file in ten is for validation, chosen by the hash of its path; at most 4,000,000
    characters for training and 300,000 for validation. Results are comparable only within one
    version of Python.

    Returns:
      The training text and the validation text.

    Raises:
      DataError: if this Python was installed without source code.
    """
    train, validation = source_split()
    return TextSplit(*("".join(file.text for file in part) for part in (train, validation)))


def source_split(
    folder: Path | None = None,
    *,
    max_characters: int = 4_000_000,
    max_validation_characters: int = 300_000,
) -> SourceSplit:
    """Split the modules of a library by file; the same files give the same split anywhere.

    The SHA-256 of a file's path decides: about one file in ten is for validation, and files are
    added in the order of the hashes, skipping those that would exceed the maximum, so that no
    letter of the alphabet is favored. Only regular ``.py`` files in UTF-8 are used, without tests,
    generated tables, installed packages, and files that differ from machine to machine.

    Args:
      folder: folder of the library; None for that of the running Python.
      max_characters: maximum number of characters of the training part.
      max_validation_characters: maximum number of characters of the validation part.

    Returns:
      The files of both parts.

    Raises:
      DataError: if a part gets no file.
    """
    folder = Path(sysconfig.get_paths()["stdlib"]) if folder is None else folder
    parts = SourceSplit([], [])
    left = [max_characters, max_validation_characters]
    for digest, path in sorted((_digest(path), path) for path in _modules(folder)):
        part = int(digest[-8:], 16) % 10 == 0
        text = _text(folder / path)
        if text and len(text) <= left[part]:
            left[part] -= len(text)
            parts[part].append(SourceFile(path, text))
    if not all(parts):
        raise DataError(f"{folder}: expected Python source files, got too few to split")
    return SourceSplit(sorted(parts.train), sorted(parts.validation))


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()


def _modules(folder: Path) -> Iterator[str]:
    """Paths of the modules in ``folder``, relative to it, with slashes."""
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in EXCLUDED_FOLDERS and not name.startswith(EXCLUDED_STARTS)
        ]
        for name in files:
            path = Path(place, name)
            if name.endswith(".py") and not name.startswith(EXCLUDED_STARTS) and path.is_file():
                yield path.relative_to(folder).as_posix()


def _text(path: Path) -> str | None:
    """The file's text with LF line endings, None if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return None
