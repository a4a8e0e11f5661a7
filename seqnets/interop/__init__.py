"""Weights to and from other frameworks, as plain arrays: none of them is imported."""

from seqnets.interop.flax import from_flax as from_flax
from seqnets.interop.flax import to_flax as to_flax
from seqnets.interop.keras import from_keras as from_keras
from seqnets.interop.keras import to_keras as to_keras
from seqnets.interop.pytorch import from_pytorch as from_pytorch
from seqnets.interop.pytorch import to_pytorch as to_pytorch
