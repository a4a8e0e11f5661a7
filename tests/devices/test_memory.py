"""Bytes of a run: counted from the state, and asked of the compiler."""

import jax
import jax.numpy as jnp
import optax
import pytest

from seqnets.devices import memory_of
from seqnets.runs import MemoryReport
from seqnets.training import Memory, make_train_step


def state_of(params, optimizer):
    step = make_train_step(lambda params, batch: None, optimizer)
    return step.init(params, jax.random.key(0))


def test_parameters_and_moments_are_counted_and_the_step_is_asked():
    params = {"w": jnp.zeros((100, 30)), "b": jnp.zeros(30, "bfloat16")}
    state = state_of(params, optax.adam(0.1))
    xs = jnp.ones((50, 100))

    def step(params):
        return jnp.tanh(jnp.tanh(xs @ params["w"]) @ params["w"].T).sum()

    memory = memory_of(state, jax.jit(jax.grad(step)).lower(params).compile())
    assert memory.parameters == 4 * 3000 + 2 * 30
    assert memory.optimizer == 2 * memory.parameters + 4  # two moments and a counter
    assert memory.step >= 4 * 50 * 30  # the activations between, at least


def test_a_compiler_that_does_not_tell():
    class Silent:
        def memory_analysis(self):
            return None

    state = state_of({"w": jnp.zeros(3)}, optax.sgd(0.1))
    assert memory_of(state, Silent()).step is None


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (
            Memory(3_456_789, 6_913_578, 999_600),
            "parameters 3.46 MB, optimizer 6.91 MB, activations and gradients 1 MB",
        ),
        (Memory(12, 0, None), "parameters 12 B, optimizer 0 B"),
    ],
)
def test_the_line_before_training(memory, text, capsys):
    MemoryReport().on_start(memory)
    assert capsys.readouterr().err == f"memory of each device: {text}\n"
    MemoryReport().on_start(None)
    assert capsys.readouterr().err == ""
