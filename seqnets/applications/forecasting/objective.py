"""The objective of a forecaster: the loss of its output distribution."""

from __future__ import annotations

from seqnets.applications.forecasting.network import ForecastNetwork
from seqnets.data.windows import Window
from seqnets.modules import apply
from seqnets.reduction import weighted
from seqnets.training import Given, LossFn, LossOutput
from seqnets.typing import PyTree

__all__ = ["forecasting_loss"]


def forecasting_loss(network: ForecastNetwork) -> LossFn:
    """The mean loss of the head over observed future time steps, in units of the targets.

    Args:
      network: the network.

    Returns:
      A loss function of batches of `seqnets.data.Window`; see `seqnets.training.LossFn`.
    """

    def loss_fn(params: PyTree, batch: Window, given: Given) -> LossOutput:
        raw = apply(network, params, batch, *(given.keys or (None, None)))
        return LossOutput(weighted(network.head.loss(raw, batch.target), batch.weight))

    return loss_fn
