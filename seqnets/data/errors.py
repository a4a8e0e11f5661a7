"""The exception for errors in users' files."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """A file cannot be read or written, or has invalid content.

    The message is one line: the file (with line and column, if any), what was expected, and what
    was found. Missing files and denied permissions are DataErrors, too, so that one ``except``
    clause covers every error in the data.
    """
