"""Bytes of a run: counted from the state, and asked of the compiler."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.devices import NotEnoughMemoryError, available, check_training_memory, memory_of
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


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("sharded", [True, False])
def test_a_training_is_refused_by_its_shapes_alone(monkeypatch, number, sharded):
    """By the byte, against the arrays themselves."""
    devices = jax.devices()[:number]
    params, carry = {"w": jnp.zeros((40, 8)), "b": jnp.zeros(8, "bfloat16")}, jnp.zeros((12, 8))
    step = make_train_step(lambda params, batch: None, optax.adam(0.1))
    state = step.init(params, jax.random.key(0), carry=carry, variables={"mean": jnp.zeros(40)})
    batches = [np.zeros((12, 7), np.float32), np.zeros((12, 70), np.int8)]
    moments = [2 * (40 * 8 * 4 + 8 * 2), 4]  # and a counter
    each = 2 * (40 * 8 * 4 + 8 * 2) + 40 * 4 + sum(moments) // (number if sharded else 1)
    needed = number * (each + (carry.nbytes + 12 * 70) // number)
    shapes = jax.eval_shape(lambda: (state, batches))
    for memory in (needed, needed - 1):
        monkeypatch.setattr(available, "host_memory", lambda memory=memory: memory)
        context = contextlib.nullcontext()
        if memory < needed:
            words = (
                rf"training needs .* \(parameters and .*, on each of {number} devices\); a smaller"
            )
            context = pytest.raises(NotEnoughMemoryError, match=words)
        with context:
            check_training_memory(*shapes, devices, shard_optimizer=sharded)


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
