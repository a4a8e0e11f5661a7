"""The network of a language model: embedding, recurrent layers, logits of the next token."""

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
      vocabulary: number of tokens V.
      embedding: size of a token's vector E.
      layers: recurrent layers, from the input up.
      dropout: rate on the embeddings, between layers and before the output.
      variational: draw that dropout once for all steps of a row.
      residual: add each layer's input to its output, from the second layer on.
      tied: logits from the embedding table itself, after a projection where the sizes differ.
      execution: how the recurrent layers are computed; its dtype is that of all products, bfloat16
        say, while state, sums, and parameters stay float32.

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
        """The layers, and the tied output's own parameters."""
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
        dropout_keys: Keys | None = None,
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

    def dropped(
        self, ys: Float[Array, "B T H"], dropout_keys: Keys | None
    ) -> Float[Array, "B T H"]:
        """The outputs after their dropout."""
        keys = fold_in_rows(dropout_keys, 2)
        return dropout(ys, keys, self.dropout, same_steps=self.variational)

    def logits(self, ys: Float[Array, "B T H"]) -> Float[Array, "B T V"]:
        """Logits of the token that follows, from outputs after their dropout."""
        if not self.tied:
            return widen(self.output(ys))
        if self.layers[-1].cell.features != self.embedding:
            ys = self.projection(ys)
        logits = widen(self.embed.attend(ys))
        return logits + jnp.broadcast_to(self.output_bias, logits.shape)


def initial_carry(network: LanguageNetwork, params: PyTree, rows: int) -> PyTree:
    """State before any token, leaves [rows, ...]: that after a single padded one."""
    nothing = jnp.zeros((rows, 1), jnp.int32)
    carry, _ = apply(network, params, nothing, mask=jnp.zeros((rows, 1), bool))
    return carry
