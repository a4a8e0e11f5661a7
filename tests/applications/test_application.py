"""What a run begins with: the same numbers wherever they were made, on the host."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.applications import application
from seqnets.applications.application import Model, Work
from seqnets.devices import DataParallel
from seqnets.training import Weights, ema, make_train_step

KEY = jax.random.key(0)


class Config:
    class train:  # noqa: N801
        seed = 0


def work():
    after = ema(decay=0.5)
    return Work(
        config=Config,
        model=Model(
            init=lambda key: {"w": jax.random.normal(key, (3, 2))},
            fitted=lambda weights: weights,
            after=after,
        ),
        step=make_train_step(lambda params, batch: None, optax.adam(0.1), after=after),
        source=None,
        evaluation=None,
        layout=DataParallel(jax.devices()[:1]),
        checksums={},
        carry=lambda params: jnp.tile(params["w"][:1], (4, 1)),
    )


def no_cpu(*, backend):
    raise RuntimeError(f"Unknown backend {backend}")


def test_the_first_state_is_on_the_host(monkeypatch):
    state = application._initial_state(work(), None)
    arrays = jax.tree.leaves(state._replace(key=()))
    assert {type(x) for x in arrays} == {np.ndarray}
    drawn = jax.jit(jax.random.normal, static_argnums=1)(KEY, (3, 2))
    np.testing.assert_array_equal(state.params["w"], drawn)
    np.testing.assert_array_equal(state.variables["ema"]["w"], drawn)
    np.testing.assert_array_equal(state.carry, np.tile(state.params["w"][:1], (4, 1)))
    assert state.key == KEY
    # JAX may have been told to see nothing but GPUs.
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    again = application._initial_state(work(), None)
    chex.assert_trees_all_equal(again._replace(key=()), state._replace(key=()))


def test_a_warm_start_takes_the_weights_and_nothing_else():
    like = work().model.like()
    start = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), like)
    state = application._initial_state(work(), start)
    chex.assert_trees_all_equal((state.params, state.variables), tuple(start))
    assert int(state.step) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            Weights({"v": np.zeros((3, 2))}, {"ema": {"v": np.zeros((3, 2))}}),
            "the new model differ",
        ),
        (
            Weights({"w": np.zeros((3, 4))}, {"ema": {"w": np.zeros((3, 4))}}),
            r"parameter \[0\]\['w'\]: expected shape \(3, 2\), got \(3, 4\)|expected shape",
        ),
    ],
)
def test_weights_of_another_model_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        application._initial_state(work(), start)
