"""The recurrent engine: what it means to run a cell over time, and several ways to compute it."""

from seqnets.recurrence.contract import Noise as Noise
from seqnets.recurrence.execution import Execution as Execution
from seqnets.recurrence.lengths import lengths_to_mask as lengths_to_mask
from seqnets.recurrence.regularization import Regularization as Regularization
from seqnets.recurrence.unroll import unroll as unroll
