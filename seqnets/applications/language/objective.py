"""The objective of a language model: the next token of a stream, with the state carried on."""

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
    """Cross-entropy in nats a token, the state carried on; the gradient stops at the batch's start.

    The batch is a `TextBatch` or an `EvaluationBatch` (the latter with a mask).

    Args:
      network: the network.
      activity_weight: of the penalty on the size of the outputs after dropout (AR), in training.
      temporal_weight: of the penalty on the change of the outputs in time (TAR), in training. Both
        are reported on their own, as ``activity`` and ``temporal_activity``.
      from_fresh_state: begin every batch from the initial state, and carry none on.

    References:
      Merity, Keskar, Socher, 2018, arXiv:1708.02182: weights 2 and 1.
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
