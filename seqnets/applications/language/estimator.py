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

    Without keywords it is the preset ``default`` of ``seqnets text train``.

    It is fitted to a text, or to several that are joined without a separator. The fraction
    ``validation`` at the end is held out: the weights that predict it best are kept.

    Args:
      **keywords: fields of the sections of `seqnets.applications.language.config.TextConfig`.

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
          prompt: text to continue; if empty, a text is written from its beginning, as after a
            line break.
          tokens: number of tokens to write.
          temperature: logits are divided by it; 0 always takes the most probable token.
          top_k: choose among the k most probable tokens only.
          top_p: choose among the most probable tokens that together have probability p.
          seed: of the choices.

        Returns:
          The continuation, without the prompt.

        Raises:
          NotFittedError: if nothing was fitted.
          ValueError: if an argument is out of range.

        Warns:
          UserWarning: if the prompt holds characters that did not occur in training.
        """
        sampling = Sampling(temperature, top_k, top_p)
        return self.fitted.generate(prompt, tokens, sampling, seed)

    def score(self, text: str) -> dict[str, float]:
        """Measure a text, as ``evaluate`` prints it.

        Raises:
          NotFittedError: if nothing was fitted.
          DataError: if the text has fewer than 2 tokens.

        Warns:
          UserWarning: if characters did not occur in training, or the model is much worse from the
            initial state than from a carried one.
        """
        return self.fitted.evaluate(text)
