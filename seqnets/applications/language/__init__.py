"""Language models of text, by characters or bytes."""

from seqnets.applications.language.estimator import LanguageModel as LanguageModel
from seqnets.applications.language.network import LanguageNetwork as LanguageNetwork
