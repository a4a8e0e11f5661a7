"""NVIDIA's cuDNN kernel for the plain LSTM, through `jax.experimental.rnn`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedParams
from seqnets.cells.lstm import LSTM, LSTMCarry
from seqnets.recurrence.contract import Steps
from seqnets.typing import Array, Cell, Float, PyTree

__all__ = ["cudnn", "why_not_cudnn"]


def why_not_cudnn(cell: Cell, params: PyTree, carry: PyTree, steps: Steps) -> str | None:
    """Why the kernel cannot run on this device or with these arguments; None if it can."""
    if jax.default_backend() != "gpu":
        return f"device: expected an NVIDIA GPU, got {jax.default_backend()}"
    if type(cell) is not LSTM:
        return f"cell: expected an LSTM, got {cell}"
    arrays = {"xs": steps.xs, "params.w_x": params.w_x, "carry.c": carry.c}
    for name, array in arrays.items():
        if array.dtype != jnp.float32:
            return f"{name}: expected float32, got {array.dtype}"
    if steps.mask is not None:
        return "mask: expected None, since the kernel supports padding on the right only"
    if steps.starts is not None:
        return "reset: expected None"
    quiet = steps.noise.hidden is None and steps.noise.updates is None
    return None if quiet else "noise: expected None"


def cudnn(
    cell: Cell, params: GatedParams, carry: LSTMCarry, steps: Steps, *, reverse: bool
) -> tuple[LSTMCarry, Float[Array, "B T *H"]]:
    """Run a plain LSTM over rows of equal length on an NVIDIA GPU.

    Works under `jax.jit` and with first-order `jax.grad`. Products are computed in TF32 unless
    ``jax_default_matmul_precision`` is ``"highest"``.

    Args:
      cell: an `LSTM`.
      params: its parameters.
      carry: carry before the first step read.
      steps: inputs [B, T, D]; see `why_not_cudnn`.
      reverse: read from the last step to the first.

    Returns:
      ``(carry, ys)``, ys [B, T, H] at the positions of their inputs.

    References:
      Appleyard, Kočiský, Blunsom, Optimizing Performance of Recurrent Neural Networks on GPUs,
      2016, arXiv:1604.01946.
    """
    from jax.experimental import rnn  # imported here because it loads the GPU libraries

    B, T, D = steps.xs.shape
    xs = jnp.flip(steps.xs, 1) if reverse else steps.xs
    # The layout of PyTorch: weights by rows, then two biases, of which the second is zero here.
    bias = jnp.zeros(4 * cell.features) if params.b is None else params.b
    parts = (params.w_x.T, params.w_h.T, bias, jnp.zeros_like(bias))
    ys, h, c = rnn.lstm(
        xs,
        carry.h[None],
        carry.c[None],
        jnp.concatenate([part.ravel() for part in parts]),
        jnp.full((B,), T, jnp.int32),
        D,
        cell.features,
        1,
        0.0,
        False,
    )
    return LSTMCarry(c=c[0], h=h[0]), jnp.flip(ys, 1) if reverse else ys
