"""Language modelling: the next token of a stream, with the state carried from batch to batch."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from seqnets.data.text import EvaluationBatch, TextBatch
from seqnets.dropout import dropout, fold_in_rows
from seqnets.losses import activity, cross_entropy, temporal_activity
from seqnets.modules import Stack, apply
from seqnets.recurrence import Regularization
from seqnets.reduction import Weighted, weighted, widen
from seqnets.training.state import StepKeys
from seqnets.training.step import LossFn
from seqnets.typing import Array, Bool, Cell, Float, Int, Key, PyTree

__all__ = ["LanguageModel", "initial_carry", "language_loss"]


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, logits of the next token.

    Attributes:
      vocabulary: number of tokens V.
      embedding: size of a token's vector E.
      cells: one cell a layer.
      dropout: rate on the embeddings, between layers and before the output.
      variational: draw that dropout once for all steps of a row.
      residual: add each layer's input to its output, from the second layer on.
      tied: logits from the embedding table itself, after a projection where the sizes differ.
      regularization: disturbs the recurrence in training.
      dtype: of all products, bfloat16 say; state, sums and parameters stay float32. None: float32.

    References:
      Mikolov et al., Recurrent neural network based language model, Interspeech 2010;
      Press, Wolf, Using the Output Embedding to Improve Language Models, 2016,
      arXiv:1608.05859 (tied output).
    """

    vocabulary: int
    embedding: int
    cells: tuple[Cell, ...]
    dropout: float = 0.0
    variational: bool = False
    residual: bool = False
    tied: bool = False
    regularization: Regularization = Regularization()
    dtype: Any = None

    def setup(self) -> None:
        """The layers, and the tied output's own parameters."""
        self.embed = nn.Embed(self.vocabulary, self.embedding, dtype=self.dtype)
        self.stack = Stack(
            self.cells,
            dropout=self.dropout,
            variational=self.variational,
            residual=self.residual,
            regularization=self.regularization,
            dtype=self.dtype,
        )
        if not self.tied:
            self.output = nn.Dense(self.vocabulary, dtype=self.dtype)
            return
        if self.cells[-1].features != self.embedding:
            self.projection = nn.Dense(self.embedding, dtype=self.dtype)
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        carry: PyTree | None = None,
        *,
        dropout_keys: Key | None = None,
        **options: Any,
    ) -> tuple[PyTree, Float[Array, "B T V"]]:
        """Read tokens; arguments are those of `outputs`.

        Returns:
          ``(carry, logits)``: state after each row's last real token; logits of the token that
          follows each one, in float32 or wider.
        """
        carry, ys = self.outputs(tokens, carry, dropout_keys=dropout_keys, **options)
        return carry, self.logits(self.dropped(ys, dropout_keys))

    def outputs(
        self,
        tokens: Int[Array, "B T"],
        carry: PyTree | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        dropout_keys: Key | None = None,
        weight_key: Key | None = None,
    ) -> tuple[PyTree, Float[Array, "B T H"]]:
        """Read tokens, without the output layer.

        Args:
          tokens: ids in [0, V).
          carry: state before the first token, or None for the initial one.
          mask: True at real tokens.
          reset: True where a new text starts.
          dropout_keys: [B] random keys, one a row; None for no dropout.
          weight_key: one random key of the weight drop; None for none.

        Returns:
          ``(carry, ys)``: state after each row's last real token; outputs of the last layer,
          before their dropout.
        """
        keys = fold_in_rows(dropout_keys, 0)
        xs = dropout(self.embed(tokens), keys, self.dropout, same_steps=self.variational)
        return self.stack(
            xs,
            carry,
            mask=mask,
            reset=reset,
            dropout_keys=fold_in_rows(dropout_keys, 1),
            weight_key=weight_key,
        )

    def dropped(self, ys: Float[Array, "B T H"], dropout_keys: Key | None) -> Float[Array, "B T H"]:
        """The outputs after their dropout."""
        keys = fold_in_rows(dropout_keys, 2)
        return dropout(ys, keys, self.dropout, same_steps=self.variational)

    def logits(self, ys: Float[Array, "B T H"]) -> Float[Array, "B T V"]:
        """Logits of the token that follows, from outputs after their dropout."""
        if not self.tied:
            return widen(self.output(ys))
        if self.cells[-1].features != self.embedding:
            ys = self.projection(ys)
        logits = widen(self.embed.attend(ys))
        return logits + jnp.broadcast_to(self.output_bias, logits.shape)


def initial_carry(model: LanguageModel, params: PyTree, rows: int) -> PyTree:
    """State before any token, leaves [rows, ...]: that after a single padded one."""
    nothing = jnp.zeros((rows, 1), jnp.int32)
    carry, _ = apply(model, params, nothing, mask=jnp.zeros((rows, 1), bool))
    return carry


def language_loss(
    model: LanguageModel, *, activity_weight: float = 0.0, temporal_weight: float = 0.0
) -> LossFn:
    """Cross-entropy in nats a token, the state carried on; the gradient stops at the batch's start.

    The batch is a `TextBatch` or an `EvaluationBatch` (the latter with a mask).

    Args:
      model: the model.
      activity_weight: of the penalty on the size of the outputs after dropout (AR), in training.
      temporal_weight: of the penalty on the change of the outputs in time (TAR), in training. Both
        are reported on their own, as ``activity`` and ``temporal_activity``.

    References:
      Merity, Keskar, Socher, 2018, arXiv:1708.02182: weights 2 and 1.
    """

    def loss_fn(
        params: PyTree, carry: PyTree, batch: TextBatch | EvaluationBatch, keys: StepKeys | None
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        mask = jnp.asarray(batch.mask) if isinstance(batch, EvaluationBatch) else None
        reset = None
        if isinstance(batch, TextBatch) and batch.reset is not None:
            reset = jnp.asarray(batch.reset)
        bound = model.bind({"params": params})
        inputs = jnp.asarray(batch.inputs)
        rows, shared = keys or (None, None)
        carry, ys = bound.outputs(
            inputs, carry, mask=mask, reset=reset, dropout_keys=rows, weight_key=shared
        )
        dropped = bound.dropped(ys, rows)
        loss = weighted(cross_entropy(bound.logits(dropped), jnp.asarray(batch.targets)), mask)
        penalties = {}
        if keys is not None and activity_weight:
            penalties["activity"] = weighted(activity_weight * activity(dropped), mask)
        if keys is not None and temporal_weight:
            changes = temporal_activity(ys, mask, reset)
            penalties["temporal_activity"] = weighted(temporal_weight * changes, mask)
        for penalty in penalties.values():
            loss = loss._replace(total=loss.total + penalty.total)
        return loss, (jax.lax.stop_gradient(carry), penalties)

    return loss_fn
