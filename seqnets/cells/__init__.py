"""Recurrent cells: one file a family, each a small object of pure functions."""

from seqnets.cells.elman import Elman as Elman
from seqnets.cells.elman import ElmanCarry as ElmanCarry
from seqnets.cells.gated import GatedCell as GatedCell
from seqnets.cells.gated import GatedParams as GatedParams
from seqnets.cells.gru import GRU as GRU
from seqnets.cells.gru import GRUCarry as GRUCarry
from seqnets.cells.gru import GRUResetBefore as GRUResetBefore
from seqnets.cells.lstm import LSTM as LSTM
from seqnets.cells.lstm import LSTMCarry as LSTMCarry
