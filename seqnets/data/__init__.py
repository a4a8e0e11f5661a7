"""Text and series: files, tokenizers, streams and windows, and built-in data.

Every mistake in a file is a `DataError`, one line that names the file and the place.
"""

from seqnets.data.bucketing import (
    BucketBatch,
    BucketBatches,
    Buckets,
    Padded,
    pad_sequences,
)
from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.builtin.standard_library import standard_library
from seqnets.data.errors import DataError
from seqnets.data.forecasts import write_forecasts
from seqnets.data.grid import season_of
from seqnets.data.packing import Packed, pack_sequences
from seqnets.data.series import Series, future_times, read_series
from seqnets.data.text import (
    EvaluationBatch,
    Excerpt,
    TextBatch,
    TextSplit,
    TextStream,
    evaluation_batches,
    evaluation_span,
    read_texts,
    split_tail,
    training_span,
)
from seqnets.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    tokenizer_from_dict,
)
from seqnets.data.windows import SeriesWindows, Window, WindowShape

__all__ = [
    "BucketBatch",
    "BucketBatches",
    "Buckets",
    "ByteTokenizer",
    "CharacterTokenizer",
    "DataError",
    "EvaluationBatch",
    "Excerpt",
    "Packed",
    "Padded",
    "Series",
    "SeriesWindows",
    "TextBatch",
    "TextSplit",
    "TextStream",
    "Tokenizer",
    "Window",
    "WindowShape",
    "evaluation_batches",
    "evaluation_span",
    "future_times",
    "mauna_loa",
    "pack_sequences",
    "pad_sequences",
    "read_series",
    "read_texts",
    "season_of",
    "split_tail",
    "standard_library",
    "tokenizer_from_dict",
    "training_span",
    "write_forecasts",
]
