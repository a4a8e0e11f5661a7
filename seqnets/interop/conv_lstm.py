"""Convolutional LSTMs: Flax Linen's ``ConvLSTMCell``, and Keras's ``ConvLSTM1D``, ``2D``, ``3D``.

    Flax    ih  kernel [*kernel, D, 4·H]   bias [4·H]      hh  kernel [*kernel, H, 4·H]   bias [4·H]
    Keras   kernel [*kernel, D, 4·H]   recurrent_kernel [*kernel, H, 4·H]   bias [4·H]

Keras has our order of gates, i, f, g, o. Flax has the order i, g, f, o, and adds 1 to the forget
gate, which is part of the bias here; only the sum of its two biases matters, which is our ``b``.
Missing biases become zeros. Our cell keeps the image size, so the foreign layers must have no
strides or dilation, the padding ``"SAME"`` (Flax's default; Keras's is ``"valid"``), and in Keras
channels last and the recurrent activation ``sigmoid``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqnets.cells import ConvLSTM, ConvLSTMParams
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, flatten, float_array
from seqnets.interop.keras import NAMES, check_number
from seqnets.interop.layout import check_no_bias, zero_bias
from seqnets.typing import Float

__all__ = [
    "from_flax_conv_lstm",
    "from_keras_conv_lstm",
    "import_flax_conv_lstm",
    "to_flax_conv_lstm",
    "to_keras_conv_lstm",
]

KERNELS = ("ih/kernel", "hh/kernel")
BIASES = ("ih/bias", "hh/bias")
AXES = {1: "X", 2: "Y X", 3: "Z Y X"}


class _Arrays(NamedTuple):
    """Two kernels and their bias, in our order of gates or a foreign one."""

    w_x: np.ndarray
    w_h: np.ndarray
    b: np.ndarray


def from_flax_conv_lstm(
    params: Mapping[str, Any], *, image: Sequence[int]
) -> tuple[ConvLSTM, ConvLSTMParams]:
    """Import a ConvLSTMCell of Flax Linen.

    Args:
      params: ``variables["params"]`` of the cell, with or without biases.
      image: sizes of the image axes, 1 to 3 of them, which are not part of the parameters.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if a key is missing or unknown, the shapes do not match each other or the number
        of image axes, or that number is not 1, 2, or 3.
      TypeError: if ``params`` is not a mapping, or an array is not of floats.
    """
    return import_flax_conv_lstm(flatten("params", params), image)


def import_flax_conv_lstm(
    flat: Mapping[str, Any], image: Sequence[int], *, path: str = ""
) -> tuple[ConvLSTM, ConvLSTMParams]:
    """Import a cell from its arrays by path; messages prepend ``path``."""
    biases = BIASES if flat.keys() & set(BIASES) else ()
    check_keys(f"params[{path!r}]" if path else "params", flat, (*KERNELS, *biases))
    names = [f"{path}/{key}".lstrip("/") for key in (*KERNELS, *biases)]
    w_x, w_h, *both = map(float_array, names, (flat[key] for key in (*KERNELS, *biases)))
    cell = _cell(w_x, w_h, names, image)
    for name, bias in zip(names[2:], both, strict=True):
        check_shape(name, bias, (4 * cell.features,), f"gates of {names[1]}")
    b = both[0] + both[1] if both else zero_bias(w_x)
    arrays = _Arrays(*map(_swap_middle_gates, (w_x, w_h, b)))
    arrays.b[cell.features : 2 * cell.features] += 1
    return cell, _imported(arrays)


def to_flax_conv_lstm(
    cell: ConvLSTM, params: ConvLSTMParams, *, bias: bool = True
) -> dict[str, dict[str, Float[np.ndarray, "*S"]]]:
    """Export to a ConvLSTMCell of Flax Linen with the same features and kernel size.

    Our bias becomes the bias of ``ih``, and the bias of ``hh`` is zero. The 1 of the forget gate is
    added and subtracted in the precision of the parameters.

    Args:
      cell: the cell.
      params: its parameters.
      bias: False for a cell with ``use_bias=False``; our bias must then be 1 for the forget gate
        and 0 otherwise.

    Returns:
      The tree, for ``cell.apply({"params": tree}, ...)``.

    Raises:
      ValueError: if the parameters do not have the shapes of the cell, or a bias that cannot be
        exported is not zero.
      TypeError: if the cell or the parameters are of another kind, or not of floats.
    """
    w_x, w_h, b = map(_swap_middle_gates, _exported(cell, params))
    b[2 * cell.features : 3 * cell.features] -= 1
    if not bias:
        check_no_bias("params.b, less 1 for the forget gate", b)
        return {"ih": {"kernel": w_x}, "hh": {"kernel": w_h}}
    return {"ih": {"kernel": w_x, "bias": b}, "hh": {"kernel": w_h, "bias": np.zeros_like(b)}}


def from_keras_conv_lstm(
    weights: Sequence[Any], *, image: Sequence[int]
) -> tuple[ConvLSTM, ConvLSTMParams]:
    """Import a ConvLSTM1D, ConvLSTM2D, or ConvLSTM3D of Keras with ``padding="same"``.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel, and bias unless the layer has
        ``use_bias=False``.
      image: sizes of the image axes, 1 to 3 of them, which are not part of the weights.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if there are not three arrays (two without a bias), the shapes do not match each
        other or the number of image axes, or that number is not 1, 2, or 3.
      TypeError: if ``weights`` is not a list, or an array is not of floats.
    """
    check_number(weights, NAMES)
    w_x, w_h, *bias = map(float_array, NAMES, weights)
    cell = _cell(w_x, w_h, NAMES, image)
    b = bias[0] if bias else zero_bias(w_x)
    check_shape(NAMES[2], b, (4 * cell.features,), f"gates of {NAMES[1]}")
    return cell, _imported(_Arrays(w_x, w_h, b))


def to_keras_conv_lstm(
    cell: ConvLSTM, params: ConvLSTMParams, *, bias: bool = True
) -> list[Float[np.ndarray, "*S"]]:
    """Export to a Keras layer with the same filters and kernel size.

    Args:
      cell: the cell.
      params: its parameters.
      bias: False for a layer with ``use_bias=False``; our bias must then be zero.

    Returns:
      The arrays, for ``layer.set_weights``.

    Raises:
      ValueError: if the parameters do not have the shapes of the cell, or a bias that the layer
        lacks is not zero.
      TypeError: if the cell or the parameters are of another kind, or not of floats.
    """
    arrays = _exported(cell, params)
    if bias:
        return list(arrays)
    check_no_bias("params.b", arrays.b)
    return [arrays.w_x, arrays.w_h]


def _cell(w_x: np.ndarray, w_h: np.ndarray, names: Sequence[str], image: Sequence[int]) -> ConvLSTM:
    """The cell to which two kernels belong; ``names`` are for messages."""
    if len(image) not in AXES:
        raise ValueError(f"image: expected a size for each of 1 to 3 axes, got {tuple(image)}")
    for name, array, channels in zip(names[:2], (w_x, w_h), "DH", strict=True):
        check_rank(name, array, len(image) + 2, f"{AXES[len(image)]} {channels} 4·H")
    kernel, features = w_h.shape[:-2], w_h.shape[-2]
    width = 4 * features
    check_shape(names[1], w_h, (*kernel, features, width), f"4 gates of {features}")
    shape = (*kernel, w_x.shape[-2], width)
    check_shape(names[0], w_x, shape, f"kernel and gates of {names[1]}")
    return ConvLSTM(features, image=tuple(image), kernel=kernel)


def _imported(arrays: _Arrays) -> ConvLSTMParams:
    """Copies on JAX's default device, since the foreign layer may modify its arrays."""
    return ConvLSTMParams(*map(jnp.array, arrays))


def _exported(cell: Any, params: Any) -> _Arrays:
    """Writable arrays, checked against the cell."""
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
    arrays = [float_array(f"params.{key}", getattr(params, key)).copy() for key in shapes]
    for (key, shape), array in zip(shapes.items(), arrays, strict=True):
        check_shape(f"params.{key}", array, shape, f"of ConvLSTM({H}, kernel={cell.kernel})")
    return _Arrays(*arrays)


def _swap_middle_gates(array: np.ndarray) -> np.ndarray:
    """Copy with the middle two of four blocks swapped: i, g, f, o to i, f, g, o and back."""
    first, second, third, fourth = np.split(array, 4, axis=-1)
    return np.concatenate([first, third, second, fourth], axis=-1)
