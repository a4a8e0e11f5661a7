"""How a recurrent layer is computed; what it computes does not depend on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from seqnets.checks import check_range, did_you_mean

__all__ = ["Execution"]

NAMES = ("auto", "cudnn", "fused", "scan")


@dataclasses.dataclass(frozen=True)
class Execution:
    """The way in which cells are run over time. Parameters do not depend on it.

    Attributes:
      strategy: ``"auto"`` takes the first of `seqnets.recurrence.strategies.STRATEGIES` that can
        run the layer and pays; a name takes that one, or raises TypeError if it cannot.

        * ``"fused"``: gated cells, with a derivative of its own: fast, but no forward mode.
        * ``"scan"``: one plain scan: any cell, both modes of differentiation.
        * ``"cudnn"``: NVIDIA's kernel for the plain LSTM, in float32, for rows of equal length,
          with first derivatives. Never taken by ``"auto"``, since it has not been measured.
      remat: keep for the gradient only the carry before every ``remat`` time steps, and compute
        what is between again on the way back; about √T needs least memory. None keeps everything.
      dtype: of the factors of products and of the outputs, ``"bfloat16"`` say; the carry, all
        sums, and the parameters are then float32 or wider. None: as inputs and parameters are.

    Raises:
      ValueError: if there is no such strategy, remat is below 1, or the dtype is none of floats.
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
                raise ValueError(f"dtype: expected one of floats, got {self.dtype!r}") from error
            if not jnp.issubdtype(dtype, jnp.floating):
                raise ValueError(f"dtype: expected one of floats, got {dtype.name}")
            object.__setattr__(self, "dtype", dtype.name)
