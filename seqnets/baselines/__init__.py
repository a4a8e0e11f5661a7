"""Baselines in NumPy, without training, that every trained model should beat."""

from seqnets.baselines.series import seasonal_naive as seasonal_naive
from seqnets.baselines.text import lzma_bits as lzma_bits
from seqnets.baselines.text import ngram_bits as ngram_bits
from seqnets.baselines.text import ngram_probabilities as ngram_probabilities
from seqnets.baselines.text import unigram_bits as unigram_bits
