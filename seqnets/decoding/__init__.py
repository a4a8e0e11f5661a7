"""Decoding: rollouts of step functions, and the choice of the value at each step."""

from seqnets.decoding.generate import generate as generate
from seqnets.decoding.generate import sampler as sampler
from seqnets.decoding.rollout import Rollout as Rollout
from seqnets.decoding.rollout import StepFn as StepFn
from seqnets.decoding.rollout import never as never
from seqnets.decoding.rollout import rollout as rollout
from seqnets.decoding.rollout import start_rollout as start_rollout
from seqnets.decoding.sampling import Sampling as Sampling
from seqnets.decoding.sampling import filter_logits as filter_logits
from seqnets.decoding.sampling import sample_token as sample_token
from seqnets.decoding.stream import compile_rollout as compile_rollout
from seqnets.decoding.stream import stream as stream
