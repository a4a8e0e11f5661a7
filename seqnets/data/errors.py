"""The one exception of everything that reads or writes users' files."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """A file cannot be read, is not what it should be, or cannot be written.

    The message is one line: the file (and line and column where there are any), what was
    expected, and what was found. Missing files and refused permissions are DataErrors too, so
    that one `except` clause covers every mistake in the data.
    """
