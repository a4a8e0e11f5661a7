"""Output distributions of real numbers.

A model ends in a projection to ``head.size`` unconstrained raw numbers per target value, which the
head maps to a distribution. In every head, raw zeros give a distribution close to the standard
normal, which suits targets that are scaled to about zero mean and unit variance.
"""

from seqnets.heads.gaussian import GaussianHead as GaussianHead
from seqnets.heads.protocol import Head as Head
from seqnets.heads.quantile import QuantileHead as QuantileHead
from seqnets.heads.raw import SCALE_FLOOR as SCALE_FLOOR
from seqnets.heads.student_t import StudentTHead as StudentTHead
from seqnets.heads.student_t_quantiles import student_t_quantiles as student_t_quantiles
from seqnets.heads.table import HEADS as HEADS
