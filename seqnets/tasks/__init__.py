"""Tasks: a model, its loss over a batch, and what it predicts. Nothing here knows of devices."""

from seqnets.tasks.forecasting import Forecaster as Forecaster
from seqnets.tasks.forecasting import forecasting_loss as forecasting_loss
from seqnets.tasks.language import LanguageModel as LanguageModel
from seqnets.tasks.language import initial_carry as initial_carry
from seqnets.tasks.language import language_loss as language_loss
