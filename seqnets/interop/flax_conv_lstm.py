"""Parameters of Flax Linen's ``ConvLSTMCell``: one convolution a product, each with a bias.

    ih   kernel [*kernel, D, 4·H]   bias [4·H]
    hh   kernel [*kernel, H, 4·H]   bias [4·H]

Flax has the gates in the order i, g, f, o, where ours is i, f, g, o, and adds 1 to the forget
gate in its equation, where we have that 1 in the bias. The two biases are only used as their sum,
which is our ``b``. The cell must have been made with a bias, without strides, and with the padding
``"SAME"``, Flax's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from seqnets.cells import ConvLSTM, ConvLSTMParams
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, flatten, float_array
from seqnets.typing import Float

__all__ = ["from_flax_conv_lstm", "to_flax_conv_lstm"]

PATHS = ("ih/kernel", "ih/bias", "hh/kernel", "hh/bias")
AXES = {1: "X", 2: "Y X", 3: "Z Y X"}


def from_flax_conv_lstm(
    params: Mapping[str, Any], *, image: Sequence[int]
) -> tuple[ConvLSTM, ConvLSTMParams]:
    """Cell and parameters of a ConvLSTMCell of Flax Linen.

    Args:
      params: ``variables["params"]`` of the cell.
      image: size of the images, one number an axis, which is not part of the parameters.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if a key is missing or unknown, an array has another shape than the others
        or the number of axes of the image ask, or that number is not 1, 2 or 3.
      TypeError: if params is not a mapping, or an array not of floats.
    """
    if len(image) not in AXES:
        raise ValueError(f"image: expected a size for each of 1 to 3 axes, got {tuple(image)}")
    flat = flatten("params", params)
    check_keys("params", flat, PATHS)
    w_x, b_x, w_h, b_h = (float_array(path, flat[path]) for path in PATHS)
    for path, array, channels in (("ih/kernel", w_x, "D"), ("hh/kernel", w_h, "H")):
        check_rank(path, array, len(image) + 2, f"{AXES[len(image)]} {channels} 4·H")
    kernel, features = w_h.shape[:-2], w_h.shape[-2]
    width = 4 * features
    check_shape("hh/kernel", w_h, (*kernel, features, width), f"4 gates of {features}")
    check_shape("ih/kernel", w_x, (*kernel, w_x.shape[-2], width), "kernel and gates of hh/kernel")
    for path, bias in (("ih/bias", b_x), ("hh/bias", b_h)):
        check_shape(path, bias, (width,), "gates of hh/kernel")
    cell = ConvLSTM(features, image=tuple(image), kernel=kernel)
    w_x, w_h, b = map(_swap_middle_gates, (w_x, w_h, b_x + b_h))
    b[features : 2 * features] += 1
    return cell, ConvLSTMParams(jnp.array(w_x), jnp.array(w_h), jnp.array(b))


def to_flax_conv_lstm(
    cell: ConvLSTM, params: ConvLSTMParams
) -> dict[str, dict[str, Float[np.ndarray, "*S"]]]:
    """Tree for ``{"params": tree}`` of the ConvLSTMCell of the same features and kernel size.

    Our one bias becomes that of ``ih``, and zeros become that of ``hh``. The 1 of the forget gate
    is added and taken off in the precision of the parameters.

    Raises:
      ValueError: if the parameters do not have the shapes of the cell.
      TypeError: if the cell or the parameters are of another kind, or not of floats.
    """
    if type(cell) is not ConvLSTM:
        raise TypeError(f"cell: expected a ConvLSTM, got {type(cell).__name__}")
    if not isinstance(params, ConvLSTMParams):
        raise TypeError(f"params: expected ConvLSTMParams, got {type(params).__name__}")
    H, width = cell.features, 4 * cell.features
    in_features = np.shape(params.w_x)[-2] if np.ndim(params.w_x) > 1 else 0
    shapes = {
        "w_x": (*cell.kernel, in_features, width),
        "w_h": (*cell.kernel, H, width),
        "b": (width,),
    }
    arrays = [float_array(f"params.{key}", getattr(params, key)) for key in shapes]
    for (key, shape), array in zip(shapes.items(), arrays, strict=True):
        check_shape(f"params.{key}", array, shape, f"of ConvLSTM({H}, kernel={cell.kernel})")
    w_x, w_h, b = map(_swap_middle_gates, arrays)
    b[2 * H : 3 * H] -= 1
    return {"ih": {"kernel": w_x, "bias": b}, "hh": {"kernel": w_h, "bias": np.zeros_like(b)}}


def _swap_middle_gates(array: np.ndarray) -> np.ndarray:
    """i, g, f, o to i, f, g, o and back, as a copy: the middle two of four blocks."""
    first, second, third, fourth = np.split(array, 4, axis=-1)
    return np.concatenate([first, third, second, fourth], axis=-1)
