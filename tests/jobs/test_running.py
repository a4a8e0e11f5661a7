"""What a run begins with: the same numbers wherever they were made, on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.jobs import running
from seqnets.training.parallel import DataParallel


def work():
    return running.Work(
        init=lambda key: {"w": jax.random.normal(key, (3, 2))},
        carry=lambda params: jnp.tile(params["w"][:1], (4, 1)),
        loss_fn=None,
        batch=None,
        evaluate=None,
        metric="loss",
        layout=DataParallel(jax.devices()[:1]),
        data={},
    )


def no_cpu(*, backend):
    raise RuntimeError(f"Unknown backend {backend}")


def test_the_first_state_is_on_the_host(monkeypatch):
    key = jax.random.key(3)
    state = running._initial_state(work(), optax.adam(0.1), key)
    arrays = jax.tree.leaves(state._replace(key=()))
    assert {type(x) for x in arrays} == {np.ndarray}
    np.testing.assert_array_equal(
        state.params["w"], jax.jit(jax.random.normal, static_argnums=1)(key, (3, 2))
    )
    np.testing.assert_array_equal(state.carry, np.tile(state.params["w"][:1], (4, 1)))
    assert state.key == key
    # JAX may have been told to see nothing but GPUs.
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    again = running._initial_state(work(), optax.adam(0.1), key)
    jax.tree.map(np.testing.assert_array_equal, again._replace(key=()), state._replace(key=()))
