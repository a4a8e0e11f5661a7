"""JSON that every parser accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["strict_json"]


def strict_json(value: Any, indent: int | None = None) -> str:
    """Format a value as standard JSON, with null for NaN and infinities.

    Args:
      value: dicts, lists, and tuples of strings, numbers (or NumPy scalars), booleans, and None.
      indent: number of spaces of indentation; None for a single line.

    Returns:
      The JSON text.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
