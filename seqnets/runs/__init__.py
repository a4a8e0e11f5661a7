"""Outputs of a run: run directories, checkpoints, records, and a progress bar."""

from seqnets.runs.checkpoint_files import CheckpointError as CheckpointError
from seqnets.runs.checkpoint_files import DamagedError as DamagedError
from seqnets.runs.checkpoints import Checkpointing as Checkpointing
from seqnets.runs.checkpoints import CheckpointStore as CheckpointStore
from seqnets.runs.digests import parameters_sha256 as parameters_sha256
from seqnets.runs.directory import Manifest as Manifest
from seqnets.runs.directory import RunDirectory as RunDirectory
from seqnets.runs.json_text import strict_json as strict_json
from seqnets.runs.progress_bar import ProgressBar as ProgressBar
from seqnets.runs.records import MemoryReport as MemoryReport
from seqnets.runs.records import MetricsFile as MetricsFile
from seqnets.runs.records import TensorBoard as TensorBoard
from seqnets.runs.records import read_records as read_records
from seqnets.runs.store import DirectoryStore as DirectoryStore
from seqnets.runs.store import MemoryStore as MemoryStore
from seqnets.runs.store import Store as Store
from seqnets.runs.store import save_weights as save_weights
