"""Arrays that vary over the devices of a `jax.shard_map`, and arrays that do not.

Inside a `shard_map`, JAX tracks over which axes of the mesh an array may differ. A loop must keep
that, and a custom derivative must return cotangents that vary as their arguments do.
"""

from __future__ import annotations

from typing import Any

import jax

from seqnets.typing import PyTree

__all__ = ["vary_alike"]


def vary_alike(tree: PyTree) -> Any:
    """The tree with every array varying over all axes over which any of its arrays varies.

    Values stay as they are. The cotangent of an array that varied over fewer axes is summed over
    the others, as everywhere in JAX. Outside of a `shard_map` nothing happens.
    """
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(tree)))

    def vary(x: Any) -> Any:
        missing = tuple(sorted(axes - _axes(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree) if axes else tree


def _axes(x: Any) -> frozenset[str]:
    return frozenset(jax.typeof(x).manual_axis_type.varying)
