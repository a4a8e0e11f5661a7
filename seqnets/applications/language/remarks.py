"""One-line warnings of a language model about text or states that did not occur in training."""

from __future__ import annotations

import warnings

from seqnets.data.tokenizers import Unseen

__all__ = ["warn_of_fresh_state", "warn_of_unseen"]

LARGE = 0.1  # nats per token; for a good model, the missing context costs about 0.01
SHOWN = 10
CALLER = 4  # stack level of the estimator's caller: this function, fitted model, estimator, caller


def warn_of_unseen(name: str, unseen: Unseen) -> None:
    """Warn if characters of a text did not occur in training.

    Args:
      name: name of the text in the warning.
      unseen: its characters that did not occur.
    """
    if not unseen.characters:
        return
    shown = ", ".join(map(repr, unseen.characters[:SHOWN]))
    more = len(unseen.characters) - SHOWN
    warnings.warn(
        f"{name}: {100 * unseen.share:.3g}% of its characters did not occur in training: {shown}"
        f"{f' and {more} more' if more > 0 else ''}; they are read and counted as tokens on "
        "which the model was never trained",
        stacklevel=CALLER,
    )


def warn_of_fresh_state(carried: float, fresh: float) -> None:
    """Warn if the loss is much larger from the initial state than from a carried one.

    Args:
      carried: nats per token from a carried state.
      fresh: nats per token from the initial state.
    """
    if fresh - carried > LARGE:
        warnings.warn(
            f"the loss is {fresh:.2f} nats per token from the initial state, but {carried:.2f} "
            "from a carried one, which affects prompts and short texts; train longer or with a "
            "larger data.fresh_starts",
            stacklevel=CALLER,
        )
