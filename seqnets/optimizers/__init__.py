"""Optimizers as Optax gradient transformations, schedules over progress, and their composition.

Hyperparameters are numbers. Concrete ones are checked; traced ones are not, so that `jax.jit`,
`jax.vmap`, and `optax.inject_hyperparams` work. (The latter rounds them to the dtype of the
parameters; pass ``hyperparam_dtype=jnp.float32`` to it if that is narrower.) Learning rates may
also be Optax schedules. For float16 and bfloat16 parameters, state and arithmetic are float32.
"""

from seqnets.optimizers.adaptive import adadelta as adadelta
from seqnets.optimizers.adaptive import adagrad as adagrad
from seqnets.optimizers.adaptive import rmsprop as rmsprop
from seqnets.optimizers.composition import make_optimizer as make_optimizer
from seqnets.optimizers.composition import scale_by_progress as scale_by_progress
from seqnets.optimizers.config import OptimizerConfig as OptimizerConfig
from seqnets.optimizers.decay import DecayMask as DecayMask
from seqnets.optimizers.decay import decay_mask as decay_mask
from seqnets.optimizers.decay import decoupled_decay as decoupled_decay
from seqnets.optimizers.descent import momentum as momentum
from seqnets.optimizers.descent import nesterov as nesterov
from seqnets.optimizers.descent import sgd as sgd
from seqnets.optimizers.hyperparameters import LearningRate as LearningRate
from seqnets.optimizers.moments import adam as adam
from seqnets.optimizers.moments import adamax as adamax
from seqnets.optimizers.moments import adamw as adamw
from seqnets.optimizers.moments import nadam as nadam
from seqnets.optimizers.plateau import Plateau as Plateau
from seqnets.optimizers.plateau import reduce_on_plateau as reduce_on_plateau
from seqnets.optimizers.schedules import Schedule as Schedule
from seqnets.optimizers.schedules import constant as constant
from seqnets.optimizers.schedules import cosine as cosine
from seqnets.optimizers.schedules import exponential as exponential
from seqnets.optimizers.schedules import linear as linear
from seqnets.optimizers.schedules import one_cycle as one_cycle
from seqnets.optimizers.schedules import warmup as warmup
from seqnets.optimizers.tables import OPTIMIZERS as OPTIMIZERS
from seqnets.optimizers.tables import SCHEDULES as SCHEDULES
