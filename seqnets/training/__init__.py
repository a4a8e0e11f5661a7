"""Training: state, step, the layout over devices, the one loop, and what a run leaves behind."""

from seqnets.training.checkpoint import CheckpointError, Checkpointing, CheckpointStore
from seqnets.training.hooks import Hook, Limits, Progress
from seqnets.training.interruption import Interruption
from seqnets.training.loop import Job, NonFiniteError, Outcome, means, sums_to_host, train
from seqnets.training.memory import Memory, memory_of
from seqnets.training.parallel import DataParallel, use_all_cores
from seqnets.training.recovery import Recovery
from seqnets.training.reporting import MemoryReport, MetricsFile, ProgressBar, TensorBoard
from seqnets.training.state import StepInfo, StepKeys, TrainState, create_state
from seqnets.training.step import LossFn, make_evaluation_step, make_train_step

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Checkpointing",
    "DataParallel",
    "Hook",
    "Interruption",
    "Job",
    "Limits",
    "LossFn",
    "Memory",
    "MemoryReport",
    "MetricsFile",
    "NonFiniteError",
    "Outcome",
    "Progress",
    "ProgressBar",
    "Recovery",
    "StepInfo",
    "StepKeys",
    "TensorBoard",
    "TrainState",
    "create_state",
    "make_evaluation_step",
    "make_train_step",
    "means",
    "memory_of",
    "sums_to_host",
    "train",
    "use_all_cores",
]
