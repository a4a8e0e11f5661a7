"""Linen modules as pure functions of their parameters."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from seqnets.typing import PyTree

__all__ = ["apply"]


def apply(module: nn.Module, params: PyTree, *args: Any, **kwargs: Any) -> Any:
    """Apply a module whose only variables are parameters.

    Args:
      module: a Linen module.
      params: its collection ``params``.
      *args: arguments of the module.
      **kwargs: keyword arguments of ``module.apply``.

    Returns:
      The outputs of the module.
    """
    return module.apply({"params": params}, *args, **kwargs)
