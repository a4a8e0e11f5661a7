"""Weights to and from other frameworks, as plain arrays: none of them is imported."""

from seqnets.interop.flax import from_flax as from_flax
from seqnets.interop.flax import to_flax as to_flax
from seqnets.interop.flax_conv_lstm import from_flax_conv_lstm as from_flax_conv_lstm
from seqnets.interop.flax_conv_lstm import to_flax_conv_lstm as to_flax_conv_lstm
from seqnets.interop.keras import from_keras as from_keras
from seqnets.interop.keras import from_keras_bidirectional as from_keras_bidirectional
from seqnets.interop.keras import to_keras as to_keras
from seqnets.interop.keras import to_keras_bidirectional as to_keras_bidirectional
from seqnets.interop.pytorch import from_pytorch as from_pytorch
from seqnets.interop.pytorch import to_pytorch as to_pytorch
from seqnets.interop.safetensors import read_safetensors as read_safetensors
from seqnets.interop.safetensors import write_safetensors as write_safetensors
