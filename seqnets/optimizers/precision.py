"""State and arithmetic in float32 for narrow parameters (float16, bfloat16).

In float16, an epsilon of 1e-8 is 0 and a square above 65504 is infinite; in bfloat16, a decay of
0.999 is 1. Only the final update is rounded to the dtype of the parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqnets.precision import widened
from seqnets.typing import PyTree

__all__ = ["in_float32"]


def in_float32(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Wrap a transformation so that it receives narrow gradients and parameters as float32.

    Its updates are rounded to the dtypes of the gradients. Leaves with other dtypes, such as
    float32 and float64, are not converted. Extra arguments of ``update`` are passed on.
    """
    inner = optax.with_extra_args_support(transformation)

    def init(params: optax.Params) -> optax.OptState:
        return inner.init(_widened(params))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        wide, state = inner.update(_widened(updates), state, _widened(params), **extra)
        return jax.tree.map(lambda w, u: w.astype(jnp.result_type(u)), wide, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _widened(tree: PyTree) -> PyTree:
    return jax.tree.map(widened, tree)
