"""The network of a language model: embedding, recurrent layers, and logits of the next token."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from seqnets.dropout import dropout, fold_in_rows
from seqnets.initializers import embedding_table
from seqnets.modules import Layer, Stack, apply
from seqnets.recurrence import Execution
from seqnets.reduction import widen
from seqnets.typing import Array, Bool, Float, Int, Key, Keys, PyTree

__all__ = ["LanguageNetwork", "initial_carry"]


class LanguageNetwork(nn.Module):
    """Embedding, recurrent layers, and logits of the next token.

    Attributes:
      vocabulary: vocabulary size V.
      embedding: size E of the embedding vectors.
      layers: recurrent layers, from the input up.
      dropout: dropout rate on the embeddings, between layers, and before the output, in [0, 1).
      variational: whether to use one dropout mask for all time steps of a row.
      residual: whether to add each layer's input to its output, from the second layer on.
      tied: whether to compute logits with the embedding table, after a projection if sizes differ.
      execution: how the recurrent layers are computed; its dtype applies to all matrix products
        (bfloat16, say), while state, sums, and parameters stay float32.

    References:
      Mikolov et al., Recurrent neural network based language model, Interspeech 2010;
      Press, Wolf, Using the Output Embedding to Improve Language Models, 2016,
      arXiv:1608.05859 (tied output).
    """

    vocabulary: int
    embedding: int
    layers: tuple[Layer, ...]
    dropout: float = 0.0
    variational: bool = False
    residual: bool = False
    tied: bool = False
    execution: Execution = Execution()

    def setup(self) -> None:
        """Create the layers, and the parameters of a tied output."""
        self.embed = nn.Embed(
            self.vocabulary,
            self.embedding,
            dtype=self.execution.dtype,
            embedding_init=embedding_table(tied=self.tied),
        )
        self.stack = Stack(
            self.layers,
            dropout=self.dropout,
            variational=self.variational,
            residual=self.residual,
            execution=self.execution,
        )
        if not self.tied:
            self.output = nn.Dense(self.vocabulary, dtype=self.execution.dtype)
            return
        if self.layers[-1].cell.features != self.embedding:
            self.projection = nn.Dense(self.embedding, dtype=self.execution.dtype)
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        carry: PyTree | None = None,
        *,
        dropout_keys: Keys | None = None,
        **options: Any,
    ) -> tuple[PyTree, Float[Array, "B T V"]]:
        """Compute the logits of the next token after each token.

        Args:
          tokens: [B, T] ids in [0, V).
          carry: state before the first token, or None for the initial one.
          dropout_keys: [B] random keys, one per row; None for no dropout.
          **options: other arguments of `outputs`.

        Returns:
          ``(carry, logits)``: the state after each row's last real token, and logits [B, T, V] in
          float32 or wider.
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
        dropout_keys: Keys | None = None,
        weight_key: Key | None = None,
    ) -> tuple[PyTree, Float[Array, "B T H"]]:
        """Compute the outputs of the last recurrent layer.

        Args:
          tokens: [B, T] ids in [0, V).
          carry: state before the first token, or None for the initial one.
          mask: [B, T], True at real tokens; None if all are real.
          reset: [B, T], True where a new text starts; None for nowhere.
          dropout_keys: [B] random keys, one per row; None for no dropout.
          weight_key: random key of weight dropout; None for no weight dropout.

        Returns:
          ``(carry, ys)``: the state after each row's last real token, and outputs [B, T, H] before
          dropout.
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

    def dropped(
        self, ys: Float[Array, "B T H"], dropout_keys: Keys | None
    ) -> Float[Array, "B T H"]:
        """Apply dropout to the outputs [B, T, H]."""
        keys = fold_in_rows(dropout_keys, 2)
        return dropout(ys, keys, self.dropout, same_steps=self.variational)

    def logits(self, ys: Float[Array, "B T H"]) -> Float[Array, "B T V"]:
        """Compute logits [B, T, V] of the next token from outputs [B, T, H] after dropout."""
        if not self.tied:
            return widen(self.output(ys))
        if self.layers[-1].cell.features != self.embedding:
            ys = self.projection(ys)
        logits = widen(self.embed.attend(ys))
        return logits + jnp.broadcast_to(self.output_bias, logits.shape)


def initial_carry(network: LanguageNetwork, params: PyTree, rows: int) -> PyTree:
    """The initial state, leaves [rows, ...], computed as the state after one padded token."""
    nothing = jnp.zeros((rows, 1), jnp.int32)
    carry, _ = apply(network, params, nothing, mask=jnp.zeros((rows, 1), bool))
    return carry
