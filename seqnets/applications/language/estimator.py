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
        whole = data if isinstance(data, str) else "".join(data)

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
          ValueError: if an argument is out of range.

        Warns:
          UserWarning: if the prompt contains characters that did not occur in training.
        """
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
          DataError: if the text has fewer than 2 tokens.

        Warns:
          UserWarning: if characters did not occur in training, or the loss is much larger from the
            initial state than from a carried one.
        """
        return self.fitted.evaluate(text)
