"""Output distributions as values, and those that configurations name."""

from collections.abc import Callable, Mapping

from seqnets.heads.gaussian import GaussianHead as GaussianHead
from seqnets.heads.head import SCALE_FLOOR as SCALE_FLOOR
from seqnets.heads.head import Head as Head
from seqnets.heads.quantile import QuantileHead as QuantileHead
from seqnets.heads.student_t import StudentTHead as StudentTHead
from seqnets.heads.student_t_quantile import student_t_quantile as student_t_quantile

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98)
"""Quantile levels of the head ``"quantile"``."""

HEADS: Mapping[str, Callable[[], Head]] = {
    "gaussian": GaussianHead,
    "quantile": lambda: QuantileHead(LEVELS),
    "student_t": StudentTHead,
}
"""Heads by name."""
