"""What the weights of a cell are for, told by the NamedTuple that holds them.

Parameters say it by field:

    @roles(w_x="input", w_h="recurrent")
    class Params(NamedTuple):
        w_x: Array
        w_h: Array
        b: Array

Fields that are not named have the role ``"other"``: biases, norms, peepholes, first carries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import jax

from seqnets.typing import PyTree

__all__ = ["has_roles", "map_role", "roles", "weights_of_role"]

ClassT = TypeVar("ClassT", bound=type)


def roles(**fields: str) -> Callable[[ClassT], ClassT]:
    """Say what the fields of a NamedTuple of parameters are for: ``"input"``, ``"recurrent"``."""

    def decorate(cls: ClassT) -> ClassT:
        cls.ROLES = fields  # type: ignore[attr-defined]
        return cls

    return decorate


def map_role(function: Callable[[Any], Any], params: PyTree, wanted: Collection[str]) -> PyTree:
    """Parameters with a function applied to the weights of some roles, wherever in the tree.

    Args:
      function: of one array.
      params: parameters of a cell, or of a composite of cells.
      wanted: roles, ``"input"``, ``"recurrent"``, or ``"other"``.
    """
    return _map(function, params, wanted, "other")


def weights_of_role(params: PyTree, role: str) -> Iterator[Any]:
    """The weights of one role, in the order of the tree."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    map_role(note, params, (role,))
    yield from found


def has_roles(params: PyTree) -> bool:
    """Whether any part of the parameters says what its weights are for."""
    if hasattr(params, "ROLES"):
        return True
    if isinstance(params, dict):
        return any(map(has_roles, params.values()))
    return isinstance(params, tuple | list) and any(map(has_roles, params))


def _map(
    function: Callable[[Any], Any], tree: PyTree, wanted: Collection[str], role: str
) -> PyTree:
    if isinstance(tree, dict):
        return {key: _map(function, value, wanted, role) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        known = getattr(tree, "ROLES", {})
        parts = {
            name: _map(function, getattr(tree, name), wanted, known.get(name, "other"))
            for name in tree._fields
        }
        return type(tree)(**parts)
    if isinstance(tree, tuple | list):
        return type(tree)(_map(function, value, wanted, role) for value in tree)
    return jax.tree.map(function, tree) if role in wanted else tree
