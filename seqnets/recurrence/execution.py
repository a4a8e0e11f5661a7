"""Options for how a recurrent layer is computed, which do not change its meaning."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from seqnets.checks import check_range, did_you_mean

__all__ = ["Execution"]

NAMES = ("auto", "cudnn", "fused", "scan")


@dataclasses.dataclass(frozen=True)
class Execution:
    """How cells are run over time. The parameters do not depend on it.

    Attributes:
      strategy: ``"auto"`` selects the first of `seqnets.recurrence.strategies.STRATEGIES` that can
        run the layer and is worthwhile. A name selects that strategy; `seqnets.unroll` raises
        TypeError if it cannot run the layer.

        * ``"fused"``: gated cells, with a custom derivative; fast, but without forward mode.
        * ``"scan"``: a plain scan for any cell; with forward mode too, unless in bfloat16.
        * ``"cudnn"``: NVIDIA's kernel for the plain LSTM, in float32, for rows of equal length,
          with first derivatives. ``"auto"`` never selects it, since it has not been measured.
      remat: store only the carry before every ``remat`` time steps for the gradient, and recompute
        the rest in the backward pass; about √T needs the least memory. None stores everything.
      dtype: dtype of the factors of products and of the outputs, e.g. ``"bfloat16"``; the carry,
        all sums, and the parameters are then float32 or wider. None uses the dtypes of the inputs
        and parameters.

    Raises:
      TypeError: if remat is not a number.
      ValueError: if there is no such strategy, remat is below 1, or dtype is not a floating dtype.
    """

    strategy: str = "auto"
    remat: int | None = None
    dtype: Any = None

    def __post_init__(self) -> None:
        if self.strategy not in NAMES:
            hint = did_you_mean(str(self.strategy), NAMES)
            raise ValueError(f"strategy: unknown name {self.strategy!r}; {hint}")
        if self.remat is not None:
            check_range("remat", self.remat, 1)
        if self.dtype is not None:
            try:
                dtype = jnp.dtype(self.dtype)
            except TypeError as error:
                raise ValueError(f"dtype: expected a floating dtype, got {self.dtype!r}") from error
            if not jnp.issubdtype(dtype, jnp.floating):
                raise ValueError(f"dtype: expected a floating dtype, got {dtype.name}")
            object.__setattr__(self, "dtype", dtype.name)
