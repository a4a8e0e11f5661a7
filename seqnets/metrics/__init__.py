"""Evaluation metrics as pure functions on the host, in float64; not for use as losses."""

from seqnets.metrics.series import QuantileLoss as QuantileLoss
from seqnets.metrics.series import coverage as coverage
from seqnets.metrics.series import evaluate_forecasts as evaluate_forecasts
from seqnets.metrics.series import mase as mase
from seqnets.metrics.series import seasonal_scale as seasonal_scale
from seqnets.metrics.series import smape as smape
from seqnets.metrics.series import weighted_quantile_loss as weighted_quantile_loss
from seqnets.metrics.series import widest_interval as widest_interval
from seqnets.metrics.text import bits_per_character as bits_per_character
from seqnets.metrics.text import perplexity as perplexity
