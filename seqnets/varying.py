"""Arrays that vary over the devices of a `jax.shard_map`.

Inside a `shard_map`, JAX tracks the mesh axes over which an array may vary. The carry of a loop
must keep these axes, and the cotangents of a custom derivative must have those of the arguments.
"""

from __future__ import annotations

from typing import Any

import jax

from seqnets.typing import PyTree

__all__ = ["vary_alike"]


def vary_alike(tree: PyTree) -> Any:
    """Make every array of a tree vary over all mesh axes over which any of them varies.

    Values do not change. As everywhere in JAX, the cotangent of an array that varied over fewer
    axes is summed over the added ones. Outside of a `shard_map`, the tree is returned as it is.
    """
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(tree)))

    def vary(x: Any) -> Any:
        missing = tuple(sorted(axes - _axes(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, tree) if axes else tree


def _axes(x: Any) -> frozenset[str]:
    return frozenset(jax.typeof(x).manual_axis_type.varying)
