"""Paths of folders without characters that libraries treat specially."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["plain_path"]

SPECIAL = re.compile(r"[*?\[\\\ud800-\udfff]")
"""Orbax expands patterns in the whole path of a checkpoint and loses arrays; TensorStore treats a
backslash as a separator and does not accept paths that are not UTF-8."""


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Context with a path of a folder that has no special characters.

    Args:
      folder: an existing folder.

    Yields:
      The folder itself if its path is plain, else a temporary link to it.

    Raises:
      OSError: if a link is needed and cannot be created.
    """
    if not SPECIAL.search(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="seqnets-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
