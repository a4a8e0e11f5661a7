"""Warnings of a language model, each in one line: text or states that training has not shown."""

from __future__ import annotations

import warnings

from seqnets.data.tokenizers import Unseen

__all__ = ["warn_of_fresh_state", "warn_of_unseen"]

LARGE = 0.1  # nats per token; what little a sound model knows of its first tokens costs 0.01
SHOWN = 10
CALLER = 4  # frames up: this function, the fitted model's method, the estimator's, its caller


def warn_of_unseen(name: str, unseen: Unseen) -> None:
    """Say which characters of a text did not occur in training, and how they are treated.

    Args:
      name: of the text.
      unseen: its characters that did not occur.
    """
    if not unseen.characters:
        return
    shown = ", ".join(map(repr, unseen.characters[:SHOWN]))
    more = len(unseen.characters) - SHOWN
    warnings.warn(
        f"{name}: {100 * unseen.share:.3g} % of its characters did not occur in training: {shown}"
        f"{f' and {more} more' if more > 0 else ''}; they are read, and counted, as tokens that "
        "the model was never trained on",
        stacklevel=CALLER,
    )


def warn_of_fresh_state(carried: float, fresh: float) -> None:
    """Say so if a model is much worse from the initial state.

    Args:
      carried: nats per token from a carried state.
      fresh: nats per token from the initial one.
    """
    if fresh - carried > LARGE:
        warnings.warn(
            f"the model needs {fresh:.2f} nats per token from the initial state, and {carried:.2f} "
            "from a carried one: prompts and short texts suffer; train longer, or with a larger "
            "data.fresh_starts",
            stacklevel=CALLER,
        )
