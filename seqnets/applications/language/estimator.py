"""Language modeling for text in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seqnets.applications.estimator import Estimator
from seqnets.applications.language.data import Texts
from seqnets.applications.language.language import LANGUAGE, FittedLanguageModel
from seqnets.data.checksums import checksum_of_text
from seqnets.data.text import split_tail
from seqnets.decoding import Sampling

__all__ = ["LanguageModel"]


class LanguageModel(Estimator[str | Sequence[str], FittedLanguageModel]):
    """A recurrent language model of characters or bytes.

    Without keywords, it has the configuration of ``seqnets text train default``.

    It is fitted to a text, or to several texts joined without a separator. The fraction
    ``validation`` at the end is held out, and the weights with the lowest loss on it are kept.

    Args:
      **keywords: fields of the sections of `seqnets.applications.language.config.TextConfig`.

    Raises:
      ConfigError: if a keyword does not exist, or its value has a wrong type or is out of range.

    Example:
      >>> model = LanguageModel(hidden=8, batch_size=2, chunk_length=8).fit("to be " * 50, steps=2)
      >>> len(model.generate("to ", tokens=5))
      5
    """

    application = LANGUAGE

    def _reader(self, data: str | Sequence[str]) -> Callable[[], Texts]:
        parts = [data] if isinstance(data, str) else data
        if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
            raise TypeError(f"data: expected a text or a list of texts, got {_kind(parts)}")
        whole = "".join(parts)

        def read() -> Texts:
            split = split_tail(whole, self.config.data.validation)
            return Texts(split, {"text": checksum_of_text(whole)})

        return read

    def generate(
        self,
        prompt: str,
        *,
        tokens: int = 500,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """Continue a prompt; the same seed gives the same text.

        Args:
          prompt: text to continue; if empty, a new text is started, as after a line break.
          tokens: number of tokens to generate, ≥ 1.
          temperature: divides the logits, ≥ 0; 0 always chooses the most probable token.
          top_k: sample only from the k most probable tokens.
          top_p: sample only from the most probable tokens with total probability p.
          seed: seed of the sampling, in [0, 2³²).

        Returns:
          The continuation, without the prompt.

        Raises:
          NotFittedError: if the model is not fitted.
          TypeError: if the prompt is not a text.
          ValueError: if an argument is out of range.

        Warns:
          UserWarning: if the prompt contains characters that did not occur in training.
        """
        _check_text("prompt", prompt)
        sampling = Sampling(temperature, top_k, top_p)
        return self.fitted.generate(prompt, tokens, sampling, seed)

    def score(self, text: str) -> dict[str, float]:
        """Evaluate the model on a text, as the command ``evaluate`` does.

        Args:
          text: text with at least 2 tokens.

        Returns:
          ``nats`` per token, ``bits_per_character``, ``perplexity`` per token, and others; see
          `seqnets.applications.language.language.FittedLanguageModel.evaluate`.

        Raises:
          NotFittedError: if the model is not fitted.
          TypeError: if it is not a text.
          DataError: if the text has fewer than 2 tokens.

        Warns:
          UserWarning: if characters did not occur in training, or the loss is much larger from the
            initial state than from a carried one.
        """
        _check_text("text", text)
        return self.fitted.evaluate(text)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {_kind(value)}")


def _kind(value: object) -> str:
    """What a value is; of a list also what its first element is."""
    kind = type(value).__name__
    return f"{kind} of {_kind(value[0])}" if isinstance(value, list) and value else kind
