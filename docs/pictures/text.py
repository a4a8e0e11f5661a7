"""The pictures of the text tutorial.

    python docs/pictures/text.py

trains two language models of Python's standard library, a short run and a long one with the
settings of the tutorial, and writes into ``docs/images``.
"""

import itertools

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from style import IMAGES, STYLE

from seqnets import LanguageModel
from seqnets.baselines import lzma_bits, ngram_bits, unigram_bits
from seqnets.data import standard_library
from seqnets.losses import cross_entropy

SHORT, LONG = 500, 2000  # optimizer steps
LENGTH = 256  # time steps from a fresh state
ROWS = 128  # of a batch, where the loss by position is measured
BLUE, ORANGE, GRAY = "tab:blue", "tab:orange", "tab:gray"
SIZE = (7, 3.6)  # inches


def main():
    """Train, measure, and draw."""
    train, test = standard_library()
    short, long = (trained(train, steps) for steps in (SHORT, LONG))
    scores = [model.score(test) for model in (short, long)]
    curve(long.records)
    baselines(
        {
            "unigram": unigram_bits(train, test),
            "3 characters of context": ngram_bits(train, test),
            "LZMA": lzma_bits(test),
            f"seqnets, {SHORT:,} steps": scores[0]["bits_per_character"],
            f"seqnets, {LONG:,} steps": scores[1]["bits_per_character"],
        }
    )
    fresh_state(bits_by_position(long, test), scores[1]["nats"] / np.log(2))


def trained(text, steps):
    """The tutorial's model after so many steps."""
    model = LanguageModel(tokenizer="byte", validation=0.01, evaluate_every=100, seed=0)
    return model.fit(text, steps=steps)


def curve(records):
    """Training and validation loss over steps."""
    records = pd.DataFrame(records)
    training = records[records["split"] == "train"]
    validation = records[records["split"] == "validation"]
    figure, axes = plt.subplots()
    axes.plot(training["step"], training["loss"], color=GRAY, label="training")
    axes.plot(validation["step"], validation["nats"], color=BLUE, linewidth=2, label="validation")
    axes.set(xlabel="optimizer steps", ylabel="loss (nats per byte)")
    axes.set(xlim=(0, None), ylim=(1, None))
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "text_curve.png")


def baselines(bits):
    """Bits per character as bars."""
    figure, axes = plt.subplots()
    colors = [BLUE if name.startswith("seqnets") else GRAY for name in bits]
    bars = axes.barh(list(bits), list(bits.values()), color=colors, height=0.7)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="bits per character of held-out files", xlim=(0, 1.15 * max(bits.values())))
    figure.savefig(IMAGES / "text_baselines.png")


def fresh_state(bits, carried):
    """The loss by position after a fresh state, averaged over spans that double in length."""
    edges = [0, *2 ** np.arange(int(np.log2(LENGTH)) + 1)]
    spans = list(itertools.pairwise(edges))
    figure, axes = plt.subplots()
    centers = [np.sqrt((first + 1) * last) for first, last in spans]
    means = [bits[first:last].mean() for first, last in spans]
    axes.plot(centers, means, "o-", color=BLUE, label="after a fresh state")
    axes.axhline(carried, color=ORANGE, linestyle="--", label="with the carried state")
    axes.set_xscale("log", base=2)
    axes.set_xticks(edges[1:], edges[1:])
    axes.set(xlabel="position after the fresh state (bytes)", ylabel="loss (bits per byte)")
    axes.set_ylim(0, 1.1 * max(means))
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "text_fresh_state.png")


def bits_by_position(model, text):
    """Mean loss in bits at each of `LENGTH` positions after a fresh state, [LENGTH]."""
    fitted = model.fitted
    params = fitted.weights.params
    tokens = fitted.tokenizer.encode(text)
    rows = (len(tokens) - 1) // LENGTH
    inputs, targets = (tokens[n : n + rows * LENGTH].reshape(rows, LENGTH) for n in (0, 1))

    @jax.jit
    def losses(inputs, targets):
        _, logits = fitted.network.apply({"params": params}, inputs)
        return cross_entropy(logits, targets)

    batches = [slice(row, row + ROWS) for row in range(0, rows - ROWS + 1, ROWS)]
    nats = [losses(inputs[batch], targets[batch]).mean(axis=0) for batch in batches]
    return np.mean(nats, axis=0) / np.log(2)


if __name__ == "__main__":
    with plt.rc_context(STYLE | {"figure.figsize": SIZE}):
        main()
