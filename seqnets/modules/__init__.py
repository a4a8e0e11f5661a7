"""Linen modules. Dense, Embed, and the norms are those of Flax.

``Embed.attend`` computes logits with the embedding table itself (tied output).
"""

from flax.linen import Dense as Dense
from flax.linen import Embed as Embed
from flax.linen import LayerNorm as LayerNorm
from flax.linen import RMSNorm as RMSNorm

from seqnets.modules.application import apply as apply
from seqnets.modules.dense import MLP as MLP
from seqnets.modules.dense import Dropout as Dropout
from seqnets.modules.dense import PReLU as PReLU
from seqnets.modules.layer import Layer as Layer
from seqnets.modules.recurrent import RNN as RNN
from seqnets.modules.recurrent import Bidirectional as Bidirectional
from seqnets.modules.recurrent import BidirectionalCarry as BidirectionalCarry
from seqnets.modules.recurrent import Stack as Stack
