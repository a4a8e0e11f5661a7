"""A session stricter than users' sessions: four CPU devices, no silent rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: random inputs, repeatable failures."""
    return np.random.default_rng([ord(c) for c in request.node.name])
