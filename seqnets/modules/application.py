"""Linen modules as pure functions of their parameters."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from seqnets.typing import PyTree

__all__ = ["apply"]


def apply(module: nn.Module, params: PyTree, *args: Any, **kwargs: Any) -> Any:
    """The outputs of a module whose only variables are parameters."""
    return module.apply({"params": params}, *args, **kwargs)
