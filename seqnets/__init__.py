"""Sequence modeling in JAX: recurrent networks that handle rows of unequal length correctly.

This module lists the public names. Each is documented in the module that defines it, which is
imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqnets import activations as activations
    from seqnets import cells as cells
    from seqnets import data as data
    from seqnets import decoding as decoding
    from seqnets import devices as devices
    from seqnets import heads as heads
    from seqnets import interop as interop
    from seqnets import losses as losses
    from seqnets import metrics as metrics
    from seqnets import modules as modules
    from seqnets import optimizers as optimizers
    from seqnets import runs as runs
    from seqnets import training as training
    from seqnets.applications.forecasting import Forecaster as Forecaster
    from seqnets.applications.language import LanguageModel as LanguageModel
    from seqnets.decoding import Sampling as Sampling
    from seqnets.decoding import generate as generate
    from seqnets.modules import RNN as RNN
    from seqnets.modules import Bidirectional as Bidirectional
    from seqnets.modules import Layer as Layer
    from seqnets.modules import Stack as Stack
    from seqnets.recurrence import Execution as Execution
    from seqnets.recurrence import Regularization as Regularization
    from seqnets.recurrence import lengths_to_mask as lengths_to_mask
    from seqnets.recurrence import unroll as unroll
    from seqnets.reduction import Weighted as Weighted
    from seqnets.reduction import weighted as weighted
    from seqnets.training import LossOutput as LossOutput
    from seqnets.training import Objective as Objective
    from seqnets.training import TrainState as TrainState
    from seqnets.training import make_train_step as make_train_step

__version__ = "0.1.0"

_ROOMS = (
    *("activations", "cells", "data", "decoding", "devices", "heads", "interop", "losses"),
    *("metrics", "modules", "optimizers", "runs", "training"),
)
_NAMES = {
    "seqnets.applications.forecasting": ("Forecaster",),
    "seqnets.applications.language": ("LanguageModel",),
    "seqnets.decoding": ("Sampling", "generate"),
    "seqnets.modules": ("Bidirectional", "Layer", "RNN", "Stack"),
    "seqnets.recurrence": ("Execution", "Regularization", "lengths_to_mask", "unroll"),
    "seqnets.reduction": ("Weighted", "weighted"),
    "seqnets.training": ("LossOutput", "Objective", "TrainState", "make_train_step"),
}
_LAZY = {
    **{room: f"seqnets.{room}" for room in _ROOMS},
    **{name: f"{module}:{name}" for module, names in _NAMES.items() for name in names},
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'seqnets' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
