"""Text and time series: files, tokenizers, sources of batches, and built-in data.

Every error in a file raises a `DataError` with a one-line message naming the file and the place.
"""

from seqnets.data.bucket_source import BucketBatch as BucketBatch
from seqnets.data.bucket_source import BucketSource as BucketSource
from seqnets.data.bucketing import Buckets as Buckets
from seqnets.data.bucketing import Padded as Padded
from seqnets.data.bucketing import pad_sequences as pad_sequences
from seqnets.data.builtin.mauna_loa import mauna_loa as mauna_loa
from seqnets.data.builtin.standard_library import standard_library as standard_library
from seqnets.data.checksums import check_same_data as check_same_data
from seqnets.data.checksums import checksum_of_series as checksum_of_series
from seqnets.data.checksums import checksum_of_text as checksum_of_text
from seqnets.data.errors import DataError as DataError
from seqnets.data.forecasts import write_forecasts as write_forecasts
from seqnets.data.frames import series_from_frame as series_from_frame
from seqnets.data.grid import season_of as season_of
from seqnets.data.packing import Packed as Packed
from seqnets.data.packing import PackedBatch as PackedBatch
from seqnets.data.packing import PackedSource as PackedSource
from seqnets.data.packing import pack_sequences as pack_sequences
from seqnets.data.series import Series as Series
from seqnets.data.series import future_times as future_times
from seqnets.data.series import read_series as read_series
from seqnets.data.source import WHOLE as WHOLE
from seqnets.data.source import ArraySource as ArraySource
from seqnets.data.source import Share as Share
from seqnets.data.source import Source as Source
from seqnets.data.source import rows_of as rows_of
from seqnets.data.source import shapes_of as shapes_of
from seqnets.data.text import EvaluationBatch as EvaluationBatch
from seqnets.data.text import Excerpt as Excerpt
from seqnets.data.text import TextBatch as TextBatch
from seqnets.data.text import TextSplit as TextSplit
from seqnets.data.text import TextStream as TextStream
from seqnets.data.text import evaluation_batches as evaluation_batches
from seqnets.data.text import evaluation_span as evaluation_span
from seqnets.data.text import read_texts as read_texts
from seqnets.data.text import split_tail as split_tail
from seqnets.data.text import training_span as training_span
from seqnets.data.tokenizers import TOKENIZERS as TOKENIZERS
from seqnets.data.tokenizers import ByteTokenizer as ByteTokenizer
from seqnets.data.tokenizers import CharacterTokenizer as CharacterTokenizer
from seqnets.data.tokenizers import Tokenizer as Tokenizer
from seqnets.data.tokenizers import Unseen as Unseen
from seqnets.data.tokenizers import tokenizer_from_dict as tokenizer_from_dict
from seqnets.data.windows import SeriesWindows as SeriesWindows
from seqnets.data.windows import Window as Window
from seqnets.data.windows import WindowShape as WindowShape
from seqnets.data.windows import WindowSource as WindowSource
