"""Output distributions of real numbers, as values: how many raw numbers, and what they mean.

A model ends in a projection to ``head.size`` raw numbers per target value, which may take any
value; the head maps them to a distribution. In every head, raw zeros are close to the standard
normal distribution, which suits targets scaled to about zero mean and unit spread.
"""

from seqnets.heads.gaussian import GaussianHead as GaussianHead
from seqnets.heads.protocol import Head as Head
from seqnets.heads.quantile import QuantileHead as QuantileHead
from seqnets.heads.raw import SCALE_FLOOR as SCALE_FLOOR
from seqnets.heads.student_t import StudentTHead as StudentTHead
from seqnets.heads.student_t_quantiles import student_t_quantiles as student_t_quantiles
from seqnets.heads.table import HEADS as HEADS
