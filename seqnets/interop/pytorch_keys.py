"""Recognizing a recurrent module or cell by the keys and shapes of its PyTorch ``state_dict``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from seqnets.cells import LSTM
from seqnets.checks import check_rank, check_shape
from seqnets.interop.layout import gates_from_width
from seqnets.typing import Float

__all__ = [
    "BIASES",
    "PROJECTION",
    "WEIGHTS",
    "Form",
    "Sizes",
    "cell_form",
    "check_shapes",
    "form_of_cell",
    "form_of_module",
    "module_form",
]

WEIGHTS = ("weight_ih", "weight_hh")
BIASES = ("bias_ih", "bias_hh")
PROJECTION = "weight_hr"


class _Kind(NamedTuple):
    """A module of layers, or a single cell: the pattern of its keys, and the function for it."""

    name: str
    key: re.Pattern[str]
    example: str
    reader: str


CELL = _Kind(
    "cell",
    re.compile(rf"({'|'.join(WEIGHTS + BIASES)})()()$"),
    "weight_ih",
    "from_pytorch_cell",
)
MODULE = _Kind(
    "module",
    re.compile(rf"({'|'.join((*WEIGHTS, *BIASES, PROJECTION))})_l(\d+)(_reverse)?$"),
    "weight_ih_l0",
    "from_pytorch",
)


class Form(NamedTuple):
    """The arrays of a module or cell, and their keys."""

    names: tuple[str, ...]
    """Names of the arrays of one direction of one layer, in PyTorch's order."""
    ends: dict[str, str]
    """Suffix of the keys of every direction of every layer, by path in our tree."""
    prefix: str
    """Prefix of all keys."""

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward direction."""
        return any(end.endswith("_reverse") for end in self.ends.values())

    @property
    def projected(self) -> bool:
        """Whether the LSTMs have a projection."""
        return PROJECTION in self.names

    def keys(self, end: str) -> list[str]:
        """The keys of one direction of one layer."""
        return [self.prefix + name + end for name in self.names]


class Sizes(NamedTuple):
    """Sizes of a module or cell, from the shapes of its arrays."""

    gates: int
    hidden: int
    features: int
    """Size of the output: the projection size, else the hidden size."""


def module_form(
    layers: int, *, bidirectional: bool, bias: bool, projected: bool, prefix: str
) -> Form:
    """The form of a module ``nn.RNN``, ``nn.LSTM``, or ``nn.GRU``."""
    suffixes = {"/forward": "", "/backward": "_reverse"} if bidirectional else {"": ""}
    ends = {
        f"layer_{k}{direction}/cell": f"_l{k}{suffix}"
        for k in range(layers)
        for direction, suffix in suffixes.items()
    }
    projection = (PROJECTION,) if projected else ()
    return Form((*WEIGHTS, *(BIASES if bias else ()), *projection), ends, prefix)


def cell_form(*, bias: bool, prefix: str) -> Form:
    """The form of a cell ``nn.RNNCell``, ``nn.LSTMCell``, or ``nn.GRUCell``."""
    return Form((*WEIGHTS, *(BIASES if bias else ())), {"cell": ""}, prefix)


def form_of_module(state_dict: Mapping[str, Any], prefix: str) -> Form:
    """Read the keys of a module.

    Raises:
      ValueError: if they are those of a cell, or have another prefix.
    """
    found = _found(state_dict, prefix, MODULE, CELL)
    return module_form(
        # Not the greatest number, since a single stray key could require a million layers.
        max(1, len({match[2] for match in found})),
        bidirectional=any(match[3] for match in found),
        bias=_have_biases(found),
        projected=any(match[1] == PROJECTION for match in found),
        prefix=prefix,
    )


def form_of_cell(state_dict: Mapping[str, Any], prefix: str) -> Form:
    """Read the keys of a cell.

    Raises:
      ValueError: if they are those of a module, or have another prefix.
    """
    found = _found(state_dict, prefix, CELL, MODULE)
    return cell_form(bias=_have_biases(found), prefix=prefix)


def check_shapes(arrays: Mapping[str, Float[np.ndarray, "*S"]], form: Form) -> Sizes:
    """Check every array against those of the first layer, and return the sizes."""
    first, *_ = form.ends.values()
    sizes = _sizes(arrays, form, first)
    width = sizes.gates * sizes.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "weight_hh": (width, sizes.features),
        "bias_ih": (width,),
        "bias_hh": (width,),
        PROJECTION: (sizes.features, sizes.hidden),
    }
    lowest = arrays[f"{form.prefix}weight_ih{first}"].shape[1]
    higher = sizes.features * (2 if form.bidirectional else 1)
    for end in form.ends.values():
        shapes["weight_ih"] = (width, lowest if end.startswith(first) else higher)
        for name, key in zip(form.names, form.keys(end), strict=True):
            why = "from the first layer and the number of directions"
            check_shape(key, arrays[key], shapes[name], why)
    return sizes


def _found(
    state_dict: Mapping[str, Any], prefix: str, kind: _Kind, other: _Kind
) -> list[re.Match[str]]:
    """The keys of one kind; ValueError if they are of the other kind, or have another prefix."""
    found = _matches(state_dict, prefix, kind.key)
    if not found and _matches(state_dict, prefix, other.key):
        raise ValueError(
            f"state_dict: expected the keys of a {kind.name}, {kind.example!r} and so on, got "
            f"those of a {other.name}; use {other.reader}"
        )
    _check_prefix(state_dict, prefix, kind.key, found)
    return found


def _matches(
    state_dict: Mapping[str, Any], prefix: str, pattern: re.Pattern[str]
) -> list[re.Match[str]]:
    """The keys that consist of the prefix and one of the names."""
    keys = (key for key in state_dict if key.startswith(prefix))
    return [match for key in keys if (match := pattern.fullmatch(key, len(prefix)))]


def _have_biases(found: list[re.Match[str]]) -> bool:
    """Whether biases are expected: if there is any, or if there are no keys at all."""
    return not found or any(match[1] in BIASES for match in found)


def _check_prefix(
    state_dict: Mapping[str, Any],
    prefix: str,
    pattern: re.Pattern[str],
    found: list[re.Match[str]],
) -> None:
    """Raise ValueError if all recurrent weights have another prefix."""
    elsewhere = {
        match.string[: match.start()] for match in map(pattern.search, state_dict) if match
    }
    if not found and (prefix or elsewhere):
        listed = (
            ", ".join(map(repr, sorted(elsewhere))) or "none, as there are no recurrent weights"
        )
        raise ValueError(f"prefix: expected {listed}, got {prefix!r}")


def _sizes(arrays: Mapping[str, np.ndarray], form: Form, first: str) -> Sizes:
    """Sizes of the first layer, whose keys have the suffix ``first``."""
    inputs, recurrent, projection = (
        f"{form.prefix}{name}{first}" for name in (*WEIGHTS, PROJECTION)
    )
    check_rank(inputs, arrays[inputs], 2, "G·H D")
    check_rank(recurrent, arrays[recurrent], 2, "G·H P" if form.projected else "G·H H")
    if not form.projected:
        width, features = arrays[recurrent].shape
        gates = gates_from_width(recurrent, (width, features), width, features)
        return Sizes(gates, features, features)
    check_rank(projection, arrays[projection], 2, "P H")
    features, hidden = arrays[projection].shape
    return Sizes(LSTM.gates, hidden, features)
