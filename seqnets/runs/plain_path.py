"""A name of a folder that every library takes literally."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["plain_path"]

SPECIAL = re.compile(r"[*?\[\\\ud800-\udfff]")
"""Orbax expands patterns in the whole path of a checkpoint, and so loses arrays; to TensorStore a
backslash separates folders, and bytes that are not UTF-8 cannot be given to it."""


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Give a name of a folder without special characters, for as long as the context lasts.

    Args:
      folder: it exists.

    Yields:
      The folder itself where its name is plain, else a temporary link to it.

    Raises:
      OSError: if a link is needed and cannot be made.
    """
    if not SPECIAL.search(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="seqnets-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
