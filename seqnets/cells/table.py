"""Cells by their names in configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seqnets.cells.coupled import CoupledLSTM
from seqnets.cells.elman import Elman
from seqnets.cells.gru import GRU, GRUResetBefore
from seqnets.cells.indrnn import IndRNN
from seqnets.cells.layer_norm import LayerNormGRU, LayerNormLSTM
from seqnets.cells.lstm import LSTM
from seqnets.cells.mgu import MGU
from seqnets.cells.peephole import PeepholeLSTM
from seqnets.cells.projected import ProjectedLSTM
from seqnets.cells.sru import SRU
from seqnets.typing import Cell

__all__ = ["CELLS"]

CELLS: Mapping[str, Callable[..., Cell]] = {
    "elman": Elman,
    "gru": GRU,
    "gru_layer_norm": LayerNormGRU,
    "gru_reset_before": GRUResetBefore,
    "ind_rnn": IndRNN,
    "lstm": LSTM,
    "lstm_coupled": CoupledLSTM,
    "lstm_layer_norm": LayerNormLSTM,
    "lstm_peephole": PeepholeLSTM,
    "lstm_projected": ProjectedLSTM,
    "mgu": MGU,
    "sru": SRU,
}
"""Constructors of cells by name; call them with ``features`` and the options of the cell."""
