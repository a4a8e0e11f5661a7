"""Forecasts as CSV files: one row per series and time, one column per quantile."""

from __future__ import annotations

import gzip
import os
import re

import pandas as pd

from seqnets.data.files import write_file

__all__ = ["write_forecasts"]

KEYS = ("unique_id", "ds")


def write_forecasts(path: str | os.PathLike[str], rows: pd.DataFrame) -> None:
    """Write a table of forecasts as CSV, atomically; with gzip if the name ends in ``.gz``.

    Args:
      path: the file; an existing one is replaced.
      rows: columns ``unique_id``, ``ds``, then one per quantile, such as ``q0.1`` for level 0.1.

    Raises:
      ValueError: if the columns are not these, or a level is not in (0, 1).
      DataError: if the folder does not exist or the file cannot be written.
    """
    names = [str(name) for name in rows.columns]
    levels = names[2:]
    if tuple(names[:2]) != KEYS or not levels or not all(map(_is_level, levels)):
        raise ValueError(
            f"rows: expected the columns unique_id, ds, and quantiles such as q0.1, "
            f"got {', '.join(names)}"
        )
    text = rows.to_csv(index=False, lineterminator="\n").encode("utf-8")
    packed = os.fspath(path).endswith(".gz")
    write_file(path, gzip.compress(text, mtime=0) if packed else text)


def _is_level(name: str) -> bool:
    found = re.fullmatch(r"q([0-9.]+(?:e-[0-9]+)?)", name)
    try:
        return found is not None and 0 < float(found[1]) < 1
    except ValueError:
        return False
