"""JSON that every reader takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["strict_json"]


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities, for which it has no words, are null.

    Args:
      value: dicts, lists and tuples of text, numbers (NumPy's scalars too), booleans and None.
      indent: spaces of indentation; None for one line.
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
