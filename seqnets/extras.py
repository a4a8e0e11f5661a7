"""Optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
      module: name of the module, such as ``"matplotlib.pyplot"``.
      extra: extra of seqnets that installs it, such as ``"plot"``.

    Returns:
      The module.

    Raises:
      ImportError: if the package is not installed; the message says how to install it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is installed, but one of its own dependencies is not
        raise ImportError(
            f'{package} is not installed; install it with: pip install "seqnets[{extra}]"',
            name=package,
        ) from error
