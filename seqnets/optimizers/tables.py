"""Optimizers and schedules by their names in configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seqnets.optimizers.adaptive import adadelta, adagrad, rmsprop
from seqnets.optimizers.descent import momentum, nesterov, sgd
from seqnets.optimizers.moments import adam, adamax, nadam
from seqnets.optimizers.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    one_cycle,
)

__all__ = ["OPTIMIZERS", "SCHEDULES"]

OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    "adadelta": adadelta,
    "adagrad": adagrad,
    "adam": adam,
    "adamax": adamax,
    "momentum": momentum,
    "nadam": nadam,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
"""Functions that make optimizers, by name; weight decay is an option of `make_optimizer`."""
SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "linear": linear,
    "one_cycle": one_cycle,
}
"""Functions that make schedules, by name."""
