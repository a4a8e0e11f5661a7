"""Language modelling: the next token of a stream, with the state carried from batch to batch."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from seqnets.data.text import EvaluationBatch, TextBatch
from seqnets.dropout import dropout, fold_in_rows
from seqnets.losses import cross_entropy
from seqnets.modules import Stack, apply
from seqnets.reduction import Weighted, weighted
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
      residual: add each layer's input to its output, from the second layer on.
      tied: logits from the embedding table itself, after a projection where the sizes differ.

    References:
      Mikolov et al., Recurrent neural network based language model, Interspeech 2010;
      Press, Wolf, Using the Output Embedding to Improve Language Models, 2016,
      arXiv:1608.05859 (tied output).
    """

    vocabulary: int
    embedding: int
    cells: tuple[Cell, ...]
    dropout: float = 0.0
    residual: bool = False
    tied: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        carry: PyTree | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        dropout_keys: Key | None = None,
    ) -> tuple[PyTree, Float[Array, "B T V"]]:
        """Read tokens.

        Args:
          tokens: ids in [0, V).
          carry: state before the first token, or None for the initial one.
          mask: True at real tokens.
          reset: True where a new text starts.
          dropout_keys: [B] random keys, one a row; None for no dropout.

        Returns:
          ``(carry, logits)``: state after each row's last real token; logits of the token that
          follows each one.
        """
        embed = nn.Embed(self.vocabulary, self.embedding, name="embed")
        xs = dropout(embed(tokens), fold_in_rows(dropout_keys, 0), self.dropout)
        stack = Stack(self.cells, dropout=self.dropout, residual=self.residual, name="stack")
        carry, ys = stack(
            xs, carry, mask=mask, reset=reset, dropout_keys=fold_in_rows(dropout_keys, 1)
        )
        ys = dropout(ys, fold_in_rows(dropout_keys, 2), self.dropout)
        if not self.tied:
            return carry, nn.Dense(self.vocabulary, name="output")(ys)
        if ys.shape[-1] != self.embedding:
            ys = nn.Dense(self.embedding, name="projection")(ys)
        bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))
        logits = embed.attend(ys)
        return carry, logits + jnp.broadcast_to(bias, logits.shape)


def initial_carry(model: LanguageModel, params: PyTree, rows: int) -> PyTree:
    """State before any token, leaves [rows, ...]: that after a single padded one."""
    nothing = jnp.zeros((rows, 1), jnp.int32)
    carry, _ = apply(model, params, nothing, mask=jnp.zeros((rows, 1), bool))
    return carry


def language_loss(model: LanguageModel) -> LossFn:
    """Cross-entropy in nats a token, the state carried on; the gradient stops at the batch's start.

    The batch is a `TextBatch` or an `EvaluationBatch` (the latter with a mask).
    """

    def loss_fn(
        params: PyTree, carry: PyTree, batch: TextBatch | EvaluationBatch, keys: Key | None
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        mask = jnp.asarray(batch.mask) if isinstance(batch, EvaluationBatch) else None
        reset = batch.reset if isinstance(batch, TextBatch) else None
        carry, logits = apply(
            model, params, batch.inputs, carry, mask=mask, reset=reset, dropout_keys=keys
        )
        loss = weighted(cross_entropy(logits, jnp.asarray(batch.targets)), mask)
        return loss, (jax.lax.stop_gradient(carry), {})

    return loss_fn
