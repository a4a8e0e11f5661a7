"""Roles of the weights of a cell, declared on the NamedTuple that holds them.

Each field has a role:

    @roles(w_x="input", w_h="recurrent")
    class Params(NamedTuple):
        w_x: Array
        w_h: Array
        b: Array

Fields that are not listed have the role ``"other"``: biases, norms, peepholes, learned carries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import jax

from seqnets.typing import PyTree

__all__ = ["has_roles", "map_role", "roles", "weights_of_role"]

ClassT = TypeVar("ClassT", bound=type)


def roles(**fields: str) -> Callable[[ClassT], ClassT]:
    """Declare the roles of the fields of a NamedTuple of parameters.

    Args:
      **fields: for a field, its role: ``"input"``, ``"recurrent"``, or ``"output"``.

    Returns:
      A class decorator.
    """

    def decorate(cls: ClassT) -> ClassT:
        cls.ROLES = fields  # type: ignore[attr-defined]
        return cls

    return decorate


def map_role(function: Callable[[Any], Any], params: PyTree, wanted: Collection[str]) -> PyTree:
    """Apply a function to all weights that have one of the wanted roles.

    Args:
      function: maps one array to its replacement.
      params: parameters of a cell, or of a composite of cells.
      wanted: roles: ``"input"``, ``"recurrent"``, ``"output"``, or ``"other"``.
    """
    return _map(function, params, wanted, "other")


def weights_of_role(params: PyTree, role: str) -> Iterator[Any]:
    """The weights that have a role, in the order of the tree."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    map_role(note, params, (role,))
    yield from found


def has_roles(params: PyTree) -> bool:
    """Whether any part of the parameters declares roles."""
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
