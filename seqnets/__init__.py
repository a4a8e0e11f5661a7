"""Sequence modelling in JAX: recurrent networks that are right on ragged rows.

The table of contents. Every name is also documented in the module it comes from.
"""

from seqnets import activations as activations
from seqnets import cells as cells
from seqnets import losses as losses
from seqnets import modules as modules
from seqnets import optimizers as optimizers
from seqnets.decoding import Sampling as Sampling
from seqnets.decoding import generate as generate
from seqnets.modules import RNN as RNN
from seqnets.modules import Bidirectional as Bidirectional
from seqnets.modules import Stack as Stack
from seqnets.recurrence import Regularization as Regularization
from seqnets.recurrence import lengths_to_mask as lengths_to_mask
from seqnets.recurrence import unroll as unroll
from seqnets.reduction import Weighted as Weighted
from seqnets.reduction import weighted as weighted
from seqnets.training.state import TrainState as TrainState
from seqnets.training.step import make_train_step as make_train_step

__version__ = "0.1.0"
