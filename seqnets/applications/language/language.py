"""Language modeling as an application: preparing a run, and using a fitted model."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.applications.application import Model, Work
from seqnets.applications.language.config import TextConfig
from seqnets.applications.language.data import (
    Texts,
    evaluation_rows,
    read_texts_of,
    share_of_corpus,
    text_stream,
)
from seqnets.applications.language.network import LanguageNetwork, initial_carry
from seqnets.applications.language.objective import language_loss
from seqnets.applications.language.remarks import warn_of_fresh_state, warn_of_unseen
from seqnets.checks import check_range
from seqnets.data.text import Excerpt, evaluation_batches
from seqnets.data.tokenizers import Tokenizer, read_tokenizer
from seqnets.decoding import Sampling, compile_rollout, sampler, start_rollout, stream
from seqnets.decoding.stream import Chunk
from seqnets.devices import DataParallel, check_memory, data_parallel
from seqnets.metrics.text import bits_per_character, perplexity
from seqnets.modules import apply
from seqnets.reduction import Weighted
from seqnets.runs import RunDirectory
from seqnets.training import LossEvaluation, Weights, make_train_step
from seqnets.typing import Array, Int, PyTree

__all__ = ["LANGUAGE", "FittedLanguageModel", "Language"]

TOKENIZER_FILE = "tokenizer.json"
EVALUATION_LENGTH = 256
BYTES_PER_TOKEN = 32  # of host memory: ids in chunks, joined ids, and characters of text
CHUNK = 64  # tokens that one call of a program reads or generates


@dataclasses.dataclass(frozen=True)
class FittedLanguageModel:
    """A language model with its weights, for evaluating and generating text."""

    tokenizer: Tokenizer
    network: LanguageNetwork
    weights: Weights

    def evaluate(self, text: str) -> dict[str, float]:
        """Evaluate the model on a text, with the state carried along each of up to 32 stretches.

        Args:
          text: text with at least 2 tokens.

        Returns:
          ``nats`` per token; ``bits_per_character``; ``perplexity`` per token;
          ``nats_from_fresh_state``, with the state reset every 256 tokens; ``unseen_share``, the
          fraction of characters that did not occur in training (they count in all metrics);
          ``tokens`` predicted; and ``tokens_per_second``.

        Raises:
          DataError: if the text has fewer than 2 tokens.

        Warns:
          UserWarning: if characters did not occur in training, or the loss is much larger from the
            initial state than from a carried one.
        """
        tokens, unseen = Excerpt.of(self.tokenizer.encode(text)), self.tokenizer.unseen(text)
        layout = data_parallel([evaluation_rows(tokens.size)])
        carried, fresh = (
            _evaluation(self.network, tokens, len(text), layout, fresh=fresh)
            for fresh in (False, True)
        )
        sums, seconds = _timed_sums(carried, self.weights)
        figures, predicted = carried.figures(sums), int(sums["loss"].weight)
        from_fresh_state = fresh.figures(fresh.sums(self.weights))["nats"]
        warn_of_unseen("text", unseen)
        warn_of_fresh_state(figures["nats"], from_fresh_state)
        return {
            **figures,
            "nats_from_fresh_state": from_fresh_state,
            "unseen_share": unseen.share,
            "tokens": predicted,
            "tokens_per_second": round(predicted / seconds, 1),
        }

    def generate(self, prompt: str, tokens: int, sampling: Sampling, seed: int = 0) -> str:
        """Continue a prompt; the same seed gives the same text.

        Args:
          prompt: text to continue; if empty, a new text is started, as after a line break
            (`Tokenizer.beginning`) read from the initial state.
          tokens: number of tokens to generate, ≥ 1.
          sampling: how to choose each token.
          seed: seed of the sampling, in [0, 2³²).

        Returns:
          The continuation, without the prompt.

        Raises:
          ValueError: if ``tokens`` or ``seed`` is out of range, or the tokens do not fit into
            memory.

        Warns:
          UserWarning: if the prompt contains characters that did not occur in training.
        """
        check_range("tokens", tokens, 1)
        check_memory(f"tokens: a text of {tokens} tokens", BYTES_PER_TOKEN * tokens)
        check_range("tokens", tokens, 1, 2**31 - 1)
        check_range("seed", seed, 0, 2**32 - 1)
        read = self.tokenizer.encode(prompt) if prompt else np.array([self.tokenizer.beginning])
        warn_of_unseen("prompt", self.tokenizer.unseen(prompt))
        params, last = self.weights.params, np.asarray(read[-1:], np.int32)
        reader, writer = _reader(self.network), _writer(self.network, sampling)
        carry = initial_carry(self.network, params, 1)
        for start in range(0, len(read) - 1, CHUNK):
            carry = reader(params, carry, *_padded(read[start : min(start + CHUNK, len(read) - 1)]))
        state = start_rollout(carry, last, jax.random.key(seed), tokens)
        written = [values[real] for values, real in stream(writer, params, state)]
        return self.tokenizer.decode(np.concatenate(written))


class Language:
    """The application; see `seqnets.applications.application.Application`."""

    config = TextConfig
    files = (TOKENIZER_FILE,)

    def read(self, config: TextConfig) -> Texts:
        """Read the configured files, or the built-in text."""
        return read_texts_of(config)

    def prepare(self, config: TextConfig, read: Callable[[], Texts]) -> Work[FittedLanguageModel]:
        """Prepare training on streams of the text, with the state carried between batches."""
        rows, train = config.train.batch_size, config.train
        layout = data_parallel([rows], shard_optimizer=train.shard_optimizer)
        corpus = share_of_corpus(config, read, layout.share, layout.peers)
        network = _network(config, corpus.tokenizer)
        loss_fn = language_loss(
            network,
            activity_weight=config.model.activity_weight,
            temporal_weight=config.model.temporal_weight,
        )
        return Work(
            config=config,
            model=_model(corpus.tokenizer, network),
            step=make_train_step(loss_fn, config.optimizer.build(), accumulate=train.accumulate),
            source=text_stream(config, corpus.train),
            evaluation=_evaluation(network, corpus.validation, corpus.characters, layout),
            layout=layout,
            checksums=corpus.checksums,
            carry=lambda params: initial_carry(network, params, rows),
            files={TOKENIZER_FILE: json.dumps(corpus.tokenizer.to_dict())},
        )

    def restore(self, config: TextConfig, run: RunDirectory) -> Model[FittedLanguageModel]:
        """The model of a run directory."""
        tokenizer = read_tokenizer(run.path / TOKENIZER_FILE)
        return _model(tokenizer, _network(config, tokenizer))


LANGUAGE = Language()


@functools.lru_cache(maxsize=8)
def _reader(network: LanguageNetwork) -> Callable[..., PyTree]:
    """A program that computes the state after a chunk of tokens [B, T] with a mask."""

    @jax.jit
    def read(params: PyTree, carry: PyTree, tokens: Array, mask: Array) -> PyTree:
        return apply(network, params, tokens, carry, mask=mask)[0]

    return read


@functools.lru_cache(maxsize=8)
def _writer(network: LanguageNetwork, sampling: Sampling) -> Chunk:
    """A program that generates a chunk of tokens."""

    def step(params: PyTree, carry: PyTree, token: Array) -> tuple[PyTree, Array]:
        carry, logits = apply(network, params, token[:, None], carry)
        return carry, logits[:, 0]

    return compile_rollout(step, steps=CHUNK, choose=sampler(sampling))


def _padded(tokens: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """A chunk of tokens as one row with its mask, so that one program suffices for any prompt."""
    padded = np.zeros((1, CHUNK), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded, np.arange(CHUNK)[None, :] < len(tokens)


def _network(config: TextConfig, tokenizer: Tokenizer) -> LanguageNetwork:
    model = config.model
    return LanguageNetwork(
        vocabulary=tokenizer.size,
        embedding=model.embedding,
        layers=model.build_layers(),
        dropout=model.dropout,
        variational=model.variational,
        residual=model.residual,
        tied=model.tied,
        execution=model.execution(),
    )


def _model(tokenizer: Tokenizer, network: LanguageNetwork) -> Model[FittedLanguageModel]:
    return Model(
        init=lambda key: network.init(key, jnp.zeros((1, 1), jnp.int32))["params"],
        fitted=lambda weights: FittedLanguageModel(tokenizer, network, weights),
    )


def _timed_sums(evaluation: LossEvaluation, weights: Weights) -> tuple[dict[str, Weighted], float]:
    """The sums of an evaluation, and the seconds that it took, without compilation."""
    evaluation.sums(weights)  # compiles
    began = time.perf_counter()
    return evaluation.sums(weights), time.perf_counter() - began


def _evaluation(
    network: LanguageNetwork,
    tokens: Excerpt,
    characters: int,
    layout: DataParallel,
    *,
    fresh: bool = False,
) -> LossEvaluation:
    """Evaluation of the loss over a text, as nats per token and bits per character.

    The state is carried from batch to batch or, with ``fresh``, reset at each batch.
    """
    rows = evaluation_rows(tokens.size)

    def figures(sums: dict[str, Weighted]) -> dict[str, float]:
        loss = sums["loss"]
        nats = float(loss.total) / float(loss.weight)
        return {
            "nats": nats,
            "bits_per_character": bits_per_character(float(loss.total), characters - 1),
            "perplexity": perplexity(nats),
        }

    return LossEvaluation(
        language_loss(network, from_fresh_state=fresh),
        lambda share: evaluation_batches(tokens, rows, EVALUATION_LENGTH, share.rows(rows)),
        rows=rows,
        layout=layout,
        carry=None if fresh else lambda params, rows: initial_carry(network, params, rows),
        metric="nats",
        figures=figures,
    )
