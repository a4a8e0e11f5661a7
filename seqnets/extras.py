"""Packages that only some uses need, and how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import a package that belongs to one of the extras of this distribution.

    Args:
      module: name of the module, ``"matplotlib.pyplot"``.
      extra: the extra that installs it, ``"plot"``.

    Raises:
      ImportError: if the package is not installed; the message says how to install it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, but something that it needs is not
        raise ImportError(
            f'{package} is not installed; install it with: pip install "seqnets[{extra}]"',
            name=package,
        ) from error
