"""Text generation from end to end: train a language model, measure it, let it write."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.checks import check_range
from seqnets.config import TextConfig, load
from seqnets.data.text import Excerpt, evaluation_batches
from seqnets.data.tokenizers import Tokenizer, read_tokenizer
from seqnets.decoding import Sampling, generate
from seqnets.jobs.corpus import evaluation_rows, share_of_corpus, training_stream
from seqnets.jobs.running import Trained, Work, evaluation_layout, layout_for, run_job
from seqnets.metrics.text import bits_per_character, perplexity
from seqnets.modules import apply
from seqnets.reduction import Weighted
from seqnets.runs import RunDirectory
from seqnets.tasks.language import LanguageModel, initial_carry, language_loss
from seqnets.training.checkpoint import CheckpointStore
from seqnets.training.loop import sums_to_host
from seqnets.typing import Array, Key, PyTree

__all__ = ["TextRun", "evaluate_text", "generate_text", "load_text_run", "train_text"]

TOKENIZER = "tokenizer.json"
EVALUATION_STEPS = 256
PROMPT_STEPS = 128


@dataclasses.dataclass(frozen=True)
class TextRun:
    """A trained language model, as read from a run directory."""

    config: TextConfig
    tokenizer: Tokenizer
    model: LanguageModel
    params: PyTree


def train_text(
    config: TextConfig, out: str | Path, *, resume: bool = False, tensorboard: bool = False
) -> Trained:
    """Train a language model on text, keeping everything in the run directory ``out``.

    Raises:
      ValueError: if the text, the configuration or the directory cannot be used.
      NonFiniteError: if the loss stops being finite.
    """
    rows, layout = config.train.batch_size, layout_for(config.train)
    own = layout.rows(rows)
    corpus = share_of_corpus(config, own)
    model, stream = _model(config, corpus.tokenizer), training_stream(config, corpus.train)
    work = Work(
        init=lambda key: model.init(key, jnp.zeros((1, 1), jnp.int32))["params"],
        carry=lambda params: initial_carry(model, params, rows),
        loss_fn=language_loss(
            model,
            activity_weight=config.model.activity_weight,
            temporal_weight=config.model.temporal_weight,
        ),
        batch=lambda k: stream.batch(k, own),
        evaluate=_measurement(model, corpus.validation),
        figures=lambda sums: _figures(sums["loss"], corpus.characters),
        metric="nats",
        layout=layout,
        data=corpus.sums,
        files={TOKENIZER: json.dumps(corpus.tokenizer.to_dict())},
    )
    return run_job(config, work, out, resume=resume, tensorboard=tensorboard)


def load_text_run(path: str | Path) -> TextRun:
    """Read the best checkpoint of a run of `train_text`.

    Raises:
      ValueError: if the directory is not such a run, or holds no checkpoint that can be read.
    """
    run = RunDirectory.open(path)
    config = load(TextConfig, run.config_file)
    tokenizer = read_tokenizer(run.path / TOKENIZER)
    model = _model(config, tokenizer)
    like = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    )
    params = CheckpointStore(run.checkpoints).restore_best_params(like)
    return TextRun(config, tokenizer, model, params)


def evaluate_text(run: TextRun, text: str) -> dict[str, float]:
    """Figures over the whole text, the state carried along each of at most 32 stretches of it.

    Returns:
      ``nats`` a token, ``bits_per_character``, ``perplexity`` a token, ``tokens`` predicted,
      ``tokens_per_second``.

    Raises:
      DataError: if the text has fewer than 2 tokens.
    """
    measure = _measurement(run.model, Excerpt.of(run.tokenizer.encode(text)))
    measure(run.params)  # compiles
    began = time.perf_counter()
    loss = measure(run.params)["loss"]
    seconds = time.perf_counter() - began
    return {
        **_figures(loss, len(text)),
        "tokens": int(loss.weight),
        "tokens_per_second": round(float(loss.weight) / seconds, 1),
    }


def generate_text(run: TextRun, prompt: str, tokens: int, sampling: Sampling, seed: int = 0) -> str:
    """Continue a prompt; the same seed gives the same text.

    Args:
      run: the model.
      prompt: what to go on from, at least one token.
      tokens: how many to write.
      sampling: how each is chosen.
      seed: of the choices.

    Raises:
      ValueError: if the prompt is empty, ``tokens`` is below 1 or ``seed`` negative.
    """
    check_range("tokens", tokens, 1)
    check_range("seed", seed, 0)
    read = run.tokenizer.encode(prompt)
    if not len(read):
        raise ValueError("prompt: expected at least one character, got none")
    *before, last = read
    written = _writer(run.model, tokens, sampling)(
        run.params, *_pad(before), np.array([last], np.int32), jax.random.key(seed)
    )
    return run.tokenizer.decode(np.asarray(written)[0])


def _pad(tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """``[1, T]`` tokens and mask, T rounded up so that few lengths are compiled."""
    T = (len(tokens) // PROMPT_STEPS + 1) * PROMPT_STEPS
    padded = np.zeros((1, T), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded, np.arange(T)[None, :] < len(tokens)


@functools.lru_cache(maxsize=8)
def _writer(model: LanguageModel, tokens: int, sampling: Sampling) -> Callable[..., Array]:
    """Reading of the prompt and writing of the rest, compiled as one program."""

    def step(params: PyTree, carry: PyTree, token: Array) -> tuple[PyTree, Array]:
        carry, logits = apply(model, params, token[:, None], carry)
        return carry, logits[:, 0]

    @jax.jit
    def write(params: PyTree, before: Array, mask: Array, last: Array, key: Key) -> Array:
        carry, _ = apply(model, params, before, mask=mask)
        _, written = generate(functools.partial(step, params), carry, last, key, tokens, sampling)
        return written

    return write


def _figures(loss: Weighted, characters: int) -> dict[str, float]:
    """Of the summed loss over all tokens of so many characters but the first."""
    nats = float(loss.total) / float(loss.weight)
    return {
        "nats": nats,
        "bits_per_character": bits_per_character(float(loss.total), characters - 1),
        "perplexity": perplexity(nats),
    }


def _measurement(model: LanguageModel, tokens: Excerpt) -> Callable[[PyTree], dict[str, Weighted]]:
    """A function of the parameters that sums the loss over this process's share of a text."""
    rows = evaluation_rows(tokens.size)
    layout, share = evaluation_layout(rows)
    batches = evaluation_batches(tokens, rows, EVALUATION_STEPS, share)
    step = layout.evaluation_step(language_loss(model))
    start = jax.jit(functools.partial(initial_carry, model, rows=share.stop - share.start))

    def measure(params: PyTree) -> dict[str, Weighted]:
        carry = layout.split(start(params))
        sums = []
        for batch in batches:
            carry, part = step(params, carry, layout.split(batch))
            sums.append(part)
        return sums_to_host(sums)

    return measure


def _model(config: TextConfig, tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(
        vocabulary=tokenizer.size,
        embedding=config.model.embedding,
        cells=config.model.cells(),
        residual=config.model.residual,
        tied=config.model.tied,
        **config.model.recurrence(),
    )
