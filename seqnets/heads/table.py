"""Heads by their names in configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seqnets.heads.gaussian import GaussianHead
from seqnets.heads.protocol import Head
from seqnets.heads.quantile import QuantileHead
from seqnets.heads.student_t import StudentTHead

__all__ = ["HEADS", "LEVELS"]

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98)
"""Levels of the head ``"quantile"``."""

HEADS: Mapping[str, Callable[[], Head]] = {
    "gaussian": GaussianHead,
    "quantile": lambda: QuantileHead(LEVELS),
    "student_t": StudentTHead,
}
"""Constructors of heads by name, without arguments."""
