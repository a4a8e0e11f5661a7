"""Importing and exporting weights of PyTorch, Keras, and Flax as plain arrays."""

from seqnets.interop.conv_lstm import from_flax_conv_lstm as from_flax_conv_lstm
from seqnets.interop.conv_lstm import from_keras_conv_lstm as from_keras_conv_lstm
from seqnets.interop.conv_lstm import to_flax_conv_lstm as to_flax_conv_lstm
from seqnets.interop.conv_lstm import to_keras_conv_lstm as to_keras_conv_lstm
from seqnets.interop.flax import from_flax as from_flax
from seqnets.interop.flax import to_flax as to_flax
from seqnets.interop.flax_rnn import from_flax_rnn as from_flax_rnn
from seqnets.interop.flax_rnn import to_flax_rnn as to_flax_rnn
from seqnets.interop.keras import from_keras as from_keras
from seqnets.interop.keras import to_keras as to_keras
from seqnets.interop.keras_wrappers import from_keras_bidirectional as from_keras_bidirectional
from seqnets.interop.keras_wrappers import from_keras_stacked as from_keras_stacked
from seqnets.interop.keras_wrappers import to_keras_bidirectional as to_keras_bidirectional
from seqnets.interop.keras_wrappers import to_keras_stacked as to_keras_stacked
from seqnets.interop.pytorch import from_pytorch as from_pytorch
from seqnets.interop.pytorch import from_pytorch_cell as from_pytorch_cell
from seqnets.interop.pytorch import to_pytorch as to_pytorch
from seqnets.interop.pytorch import to_pytorch_cell as to_pytorch_cell
from seqnets.interop.safetensors import read_safetensors as read_safetensors
from seqnets.interop.safetensors import write_safetensors as write_safetensors
