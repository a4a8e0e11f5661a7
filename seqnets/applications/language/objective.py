"""The objective of a language model: predicting the next token, with the state carried over."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.applications.language.network import LanguageNetwork
from seqnets.data.text import EvaluationBatch, TextBatch
from seqnets.losses import activity, cross_entropy, temporal_activity
from seqnets.reduction import weighted
from seqnets.training import Given, LossFn, LossOutput
from seqnets.typing import PyTree

__all__ = ["language_loss"]


def language_loss(
    network: LanguageNetwork,
    *,
    activity_weight: float = 0.0,
    temporal_weight: float = 0.0,
    from_fresh_state: bool = False,
) -> LossFn:
    """Cross-entropy in nats per token, with truncated backpropagation through time.

    The loss function takes a `TextBatch` or an `EvaluationBatch`. The state is carried from batch
    to batch, without a gradient.

    Args:
      network: the network.
      activity_weight: weight of the penalty on the size of the outputs after dropout (AR).
      temporal_weight: weight of the penalty on the change of the outputs in time (TAR). Both apply
        in training only, and are the metrics ``activity`` and ``temporal_activity``.
      from_fresh_state: start every batch from the initial state, and carry no state.

    Returns:
      A loss function; see `seqnets.training.LossFn`.

    References:
      Merity, Keskar, Socher, Regularizing and Optimizing LSTM Language Models, 2017,
      arXiv:1708.02182 (AR and TAR, there with weights 2 and 1).
    """

    def loss_fn(params: PyTree, batch: TextBatch | EvaluationBatch, given: Given) -> LossOutput:
        mask = jnp.asarray(batch.mask) if isinstance(batch, EvaluationBatch) else None
        reset = jnp.asarray(batch.reset) if isinstance(batch, TextBatch) else None
        bound = network.bind({"params": params})
        rows, shared = given.keys or (None, None)
        carry, ys = bound.outputs(
            jnp.asarray(batch.inputs),
            None if from_fresh_state else given.carry,
            mask=mask,
            reset=reset,
            dropout_keys=rows,
            weight_key=shared,
        )
        dropped = bound.dropped(ys, rows)
        loss = weighted(cross_entropy(bound.logits(dropped), jnp.asarray(batch.targets)), mask)
        penalties = {}
        if given.keys is not None and activity_weight:
            penalties["activity"] = weighted(activity_weight * activity(dropped), mask)
        if given.keys is not None and temporal_weight:
            changes = temporal_activity(ys, mask, reset)
            penalties["temporal_activity"] = weighted(temporal_weight * changes, mask)
        for penalty in penalties.values():
            loss = loss._replace(total=loss.total + penalty.total)
        kept = () if from_fresh_state else jax.lax.stop_gradient(carry)
        return LossOutput(loss, kept, penalties)

    return loss_fn
