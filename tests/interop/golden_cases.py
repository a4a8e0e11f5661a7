"""The cases of golden.npz, and the comparison of a run of ours with one of them."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))

# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def names(framework):
    """The cases of ``"torch"`` or ``"keras"``."""
    return sorted({key.split("/")[1] for key in GOLDEN if key.startswith(f"{framework}/")})


def arrays(case, group=""):
    """Arrays of a case, ``"torch/lstm"``, below a group, without their prefix."""
    prefix = f"{case}/{group}"
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def listed(case, group):
    """Those of a layer of Keras, by their numbers."""
    found = arrays(f"keras/{case}", f"{group}/")
    return [found[str(number)] for number in range(len(found))]


def stacked(carries):
    """``{"h": [layers and directions, B, H]}``, and ``"c"`` of an LSTM."""
    return {key: jnp.stack([getattr(c, key) for c in carries]) for key in carries[0]._fields}


def gradients(case, run, params):
    """Gradients by the parameters of golden.py's loss, after all else has been compared.

    ``run(params, xs, mask)`` gives the outputs ``ys`` and the states, by the names of golden.py.
    """
    golden = arrays(case)

    def loss(params, xs):
        results = run(params, xs, golden.get("mask"))
        return sum(jnp.sum(x * golden[f"pull_{k}"]) for k, x in results.items()), results

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_params, by_xs), results = gradient(params, golden["xs"])
    assert len(results) == sum(key.startswith("pull_") for key in golden)
    chex.assert_trees_all_close(results, {key: golden[key] for key in results}, **CLOSE)
    chex.assert_trees_all_close(by_xs, golden["gradient_xs"], **CLOSE)
    return by_params
