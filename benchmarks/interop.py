"""Recurrent layers of PyTorch, Keras and Flax beside ours with the same weights: how far apart.

    python benchmarks/interop.py [--shapes 3] [--seed 0]

For every kind of layer and a few random shapes, weights, inputs and ragged rows: the greatest
differences of the outputs, of the final states, and of the gradients by inputs and weights of a
random linear loss, in float32. A difference is divided by the greatest value that it is one of,
where that is above 1. The weights go through `seqnets.interop`, and the gradients back through
it. Exit status 1 if a difference is above ``--tolerance``. Peers that are not installed are named
and left out (``pip install "seqnets[bench]"``); Keras runs on its JAX backend.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.interop import (
    from_flax,
    from_flax_conv_lstm,
    from_keras,
    from_keras_bidirectional,
    from_keras_conv_lstm,
    from_pytorch,
    to_flax,
    to_flax_conv_lstm,
    to_keras,
    to_keras_bidirectional,
    to_keras_conv_lstm,
    to_pytorch,
)
from seqnets.modules import RNN

PARTS = ("outputs", "states", "inputs", "weights")

Results = dict[str, Any]
"""``outputs``, the states ``h`` and ``c``, the gradients ``inputs`` and the tree ``weights``."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes, random numbers and ragged rows."""

    shape: tuple[int, int, int, int]
    seed: int
    image: tuple[int, ...] = ()
    """Inputs are [B, T, *image, D]."""
    ragged: bool = True

    def normal(self, name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
        """Numbers that are the same for one name, whoever asks."""
        rng = np.random.default_rng([self.seed, *name.encode()])
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self.normal(name, shape, self.shape[3] ** -0.5)

    @functools.cached_property
    def xs(self) -> np.ndarray:
        B, T, D, _ = self.shape
        return self.normal("xs", (B, T, *self.image, D))

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        B, T, _, _ = self.shape
        if not self.ragged:
            return np.full(B, T)
        return np.random.default_rng(self.seed).integers(1, T + 1, B)  # PyTorch packs none of 0

    @functools.cached_property
    def mask(self) -> np.ndarray:
        return np.arange(self.shape[1]) < self.lengths[:, None]

    def shown(self, ys: jax.Array) -> jax.Array:
        """Zeros at padded steps, where others repeat or go on."""
        return jnp.where(self.mask.reshape(*self.mask.shape, *[1] * (ys.ndim - 2)), ys, 0)

    def loss(self, results: Results, convert: Callable[[np.ndarray], Any]) -> Any:
        """Results pulled by random numbers, those of a part the same for all systems."""
        return sum(
            (value * convert(self.normal(f"pull {key}", tuple(value.shape)))).sum()
            for key, value in results.items()
        )


def stacked(carry: Any) -> dict[str, jax.Array]:
    """States of all layers and directions, as PyTorch stacks them."""
    carries = jax.tree.leaves(carry, is_leaf=lambda node: hasattr(node, "h"))
    return {key: jnp.stack([getattr(c, key) for c in carries]) for key in carries[0]._fields}


def differentiate(case: Case, run: Callable[[Any, Any], Results], params: Any) -> Results:
    """Results of a function of parameters and inputs, and its gradients, in JAX."""

    def loss(params: Any, xs: jax.Array) -> tuple[jax.Array, Results]:
        results = run(params, xs)
        return case.loss(results, jnp.asarray), results

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (weights, inputs), results = gradient(params, jnp.asarray(case.xs))
    return {**results, "inputs": inputs, "weights": weights}


def ours(case: Case, module: nn.Module, params: Any) -> Results:
    def run(params: Any, xs: jax.Array) -> Results:
        carry, ys = module.apply({"params": params}, xs, mask=case.mask)
        return {"outputs": ys, **stacked(carry)}

    return differentiate(case, run, params)


def torch_pair(case: Case, kind: str, **options: Any) -> tuple[Results, Results]:
    import torch

    _, T, D, H = case.shape
    layer = getattr(torch.nn, kind)(D, H, batch_first=True, **options)
    state = {key: case.weight(key, tuple(x.shape)) for key, x in layer.state_dict().items()}
    layer.load_state_dict({key: torch.tensor(x) for key, x in state.items()})
    xs = torch.tensor(case.xs, requires_grad=True)
    packed, states = layer(
        torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.tensor(case.lengths), batch_first=True, enforce_sorted=False
        )
    )
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=T)
    named = dict(zip("hc", states, strict=True)) if kind == "LSTM" else {"h": states}
    results = {"outputs": ys, **named}
    case.loss(results, torch.tensor).backward()
    theirs = {key: value.detach().numpy() for key, value in results.items()}
    weights = {key: x.grad.numpy() for key, x in layer.named_parameters()}
    activation = jax.nn.relu if options.get("nonlinearity") == "relu" else jnp.tanh
    stack, params = from_pytorch(state, activation=activation)
    mine = ours(case, stack, params)
    mine["weights"] = to_pytorch(stack, mine["weights"])
    mine["weights"] = {key: mine["weights"][key] for key in weights}  # without biases, fewer
    if kind != "GRU":  # our one bias is the sum of PyTorch's two, and has the gradient of each
        keys = [key for key in weights if key.startswith("bias_hh")]
        mine["weights"] |= {k: mine["weights"][k.replace("_hh_", "_ih_")] for k in keys}
    return {**theirs, "inputs": xs.grad.numpy(), "weights": weights}, mine


def keras_pair(
    case: Case, kind: str, *, both: bool = False, **options: Any
) -> tuple[Results, Results]:
    import keras

    H = case.shape[3]
    layer = getattr(keras.layers, kind)(H, return_sequences=True, return_state=True, **options)
    if both:
        layer = keras.layers.Bidirectional(layer)
    layer.build(case.xs.shape)
    weights = [case.weight(str(k), w.shape) for k, w in enumerate(layer.get_weights())]

    def run(weights: list, xs: jax.Array) -> Results:
        out, _ = layer.stateless_call(weights, layer.non_trainable_variables, xs, mask=case.mask)
        ys, *states = out
        kinds = len(states) // (2 if both else 1)
        results = {"outputs": case.shown(ys)}
        return results | {key: jnp.stack(states[k::kinds]) for k, key in enumerate("hc"[:kinds])}

    theirs = differentiate(case, run, [jnp.asarray(w) for w in weights])
    known = {
        "activation": jax.nn.relu if options.get("activation") == "relu" else jnp.tanh,
        "reset_after": options.get("reset_after"),
    }
    if both:
        module, params = from_keras_bidirectional(weights, **known)
        mine = ours(case, module, params)
        return theirs, mine | {"weights": to_keras_bidirectional(module, mine["weights"])}
    cell, params = from_keras(weights, **known)
    mine = ours(case, RNN(cell), {"cell": params})
    return theirs, mine | {"weights": to_keras(cell, mine["weights"]["cell"])[: len(weights)]}


def keras_conv_pair(case: Case, **options: Any) -> tuple[Results, Results]:
    import keras

    # On JAX, Keras' masks do not fit its images.
    case = dataclasses.replace(case, image=(4, 5), ragged=False)
    options |= {"padding": "same", "return_sequences": True, "return_state": True}
    layer = keras.layers.ConvLSTM2D(case.shape[3], (3, 2), **options)
    layer.build(case.xs.shape)
    weights = [case.weight(str(k), w.shape) for k, w in enumerate(layer.get_weights())]

    def run(weights: list, xs: jax.Array) -> Results:
        (ys, h, c), _ = layer.stateless_call(weights, layer.non_trainable_variables, xs)
        return {"outputs": case.shown(ys), "h": h[None], "c": c[None]}

    theirs = differentiate(case, run, [jnp.asarray(w) for w in weights])
    cell, params = from_keras_conv_lstm(weights, image=case.image)
    mine = ours(case, RNN(cell), {"cell": params})
    by_weights = to_keras_conv_lstm(cell, mine["weights"]["cell"])
    return theirs, mine | {"weights": by_weights[: len(weights)]}


def flax_results(case: Case, cell: nn.RNNCellBase) -> tuple[Results, Any]:
    """Results and gradients of one of Flax's cells, and the parameters that were drawn."""
    layer = nn.RNN(cell, return_carry=True)
    like = jax.eval_shape(layer.init, jax.random.key(0), jnp.asarray(case.xs))["params"]["cell"]
    paths, tree = jax.tree.flatten_with_path(like)
    params = tree.unflatten(case.weight(jax.tree_util.keystr(path), x.shape) for path, x in paths)

    def run(params: Any, xs: jax.Array) -> Results:
        carry, ys = layer.apply({"params": {"cell": params}}, xs, seq_lengths=case.lengths)
        states = dict(zip("ch", carry, strict=True)) if isinstance(carry, tuple) else {"h": carry}
        return {"outputs": case.shown(ys)} | {key: x[None] for key, x in states.items()}

    return differentiate(case, run, jax.tree.map(jnp.asarray, params)), params


def flax_pair(case: Case, kind: str, **options: Any) -> tuple[Results, Results]:
    theirs, params = flax_results(case, getattr(nn, kind)(case.shape[3], **options))
    our_cell, our_params = from_flax(params, activation=options.get("activation_fn", jnp.tanh))
    mine = ours(case, RNN(our_cell), {"cell": our_params})
    by_params = mine["weights"]["cell"]
    if by_params.b_h is not None:  # Flax's one bias of a gate has the gradient of each of our two
        by_params = by_params._replace(b_h=by_params.b_h.at[: -our_cell.features].set(0))
    return theirs, mine | {"weights": to_flax(our_cell, by_params)}


def flax_conv_pair(case: Case) -> tuple[Results, Results]:
    case = dataclasses.replace(case, image=(4, 5))
    H = case.shape[3]
    theirs, params = flax_results(case, nn.ConvLSTMCell(H, (3, 2)))
    cell, our_params = from_flax_conv_lstm(params, image=case.image)
    mine = ours(case, RNN(cell), {"cell": our_params})
    by_params = mine["weights"]["cell"]
    # On the way out a bias loses the 1 of the forget gate, which a gradient does not have.
    by_params = by_params._replace(b=by_params.b.at[H : 2 * H].add(1))
    weights = to_flax_conv_lstm(cell, by_params)
    weights["hh"]["bias"] = weights["ih"]["bias"]  # both biases of a sum have its gradient
    return theirs, mine | {"weights": weights}


LAYERS: dict[str, dict[str, Callable[[Case], tuple[Results, Results]]]] = {
    "torch": {
        "RNN tanh": lambda c: torch_pair(c, "RNN"),
        "RNN relu": lambda c: torch_pair(c, "RNN", nonlinearity="relu"),
        "LSTM": lambda c: torch_pair(c, "LSTM"),
        "GRU": lambda c: torch_pair(c, "GRU"),
        "LSTM proj_size": lambda c: torch_pair(c, "LSTM", proj_size=(c.shape[3] + 1) // 2),
        "LSTM bias=False": lambda c: torch_pair(c, "LSTM", bias=False),
        "GRU bias=False": lambda c: torch_pair(c, "GRU", bias=False),
        "GRU 2 layers, both": lambda c: torch_pair(c, "GRU", num_layers=2, bidirectional=True),
        "LSTM 2 layers, both": lambda c: torch_pair(c, "LSTM", num_layers=2, bidirectional=True),
    },
    "keras": {
        "SimpleRNN": lambda c: keras_pair(c, "SimpleRNN"),
        "SimpleRNN relu": lambda c: keras_pair(c, "SimpleRNN", activation="relu"),
        "LSTM": lambda c: keras_pair(c, "LSTM"),
        "GRU": lambda c: keras_pair(c, "GRU"),
        "GRU reset before": lambda c: keras_pair(c, "GRU", reset_after=False),
        "LSTM use_bias=False": lambda c: keras_pair(c, "LSTM", use_bias=False),
        "GRU use_bias=False": lambda c: keras_pair(c, "GRU", use_bias=False, reset_after=True),
        "ConvLSTM2D": keras_conv_pair,
        "LSTM both": lambda c: keras_pair(c, "LSTM", both=True),
        "GRU both": lambda c: keras_pair(c, "GRU", both=True),
    },
    "flax": {
        "SimpleCell": lambda c: flax_pair(c, "SimpleCell"),
        "SimpleCell relu": lambda c: flax_pair(c, "SimpleCell", activation_fn=jax.nn.relu),
        "LSTMCell": lambda c: flax_pair(c, "LSTMCell"),
        "OptimizedLSTMCell": lambda c: flax_pair(c, "OptimizedLSTMCell"),
        "GRUCell": lambda c: flax_pair(c, "GRUCell"),
        "MGUCell": lambda c: flax_pair(c, "MGUCell"),
        "ConvLSTMCell": flax_conv_pair,
    },
}


def difference(theirs: Any, mine: Any) -> float:
    """The greatest of a tree of arrays, relative to the greatest value where that is above 1."""
    if jax.tree.structure(theirs) != jax.tree.structure(mine):
        raise ValueError(f"trees differ: {jax.tree.structure(theirs)}, {jax.tree.structure(mine)}")

    def of(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
        return float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a))))

    return max(jax.tree.leaves(jax.tree.map(of, theirs, mine)))


def differences(theirs: Results, mine: Results) -> dict[str, float]:
    """One for each of PARTS."""
    states = [{key: r[key] for key in "ch" if key in r} for r in (theirs, mine)]
    found = {k: difference(theirs[k], mine[k]) for k in ("outputs", "inputs", "weights")}
    return found | {"states": difference(*states)}


def shapes(number: int, seed: int) -> Iterator[tuple[int, int, int, int]]:
    """Random (B, T, D, H)."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        # PyTorch's projection is narrower than H, so H is at least 2.
        B, T, D, H = (int(x) for x in rng.integers([1, 1, 1, 2], [9, 41, 33, 65]))
        yield B, T, D, H


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=int, default=3, help="random shapes of each layer (3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="greatest difference (1e-5)")
    arguments = parser.parse_args()
    cases = [
        Case(shape, arguments.seed + k)
        for k, shape in enumerate(shapes(arguments.shapes, arguments.seed))
    ]
    print("shapes (B, T, D, H):", *(case.shape for case in cases), "\n")
    print(f"{'greatest difference':30}" + "".join(f"{part:>10}" for part in PARTS))
    worst = []
    for peer, layers in LAYERS.items():
        if not installed(peer):
            print(f"{peer} is not installed and left out", file=sys.stderr)
            continue
        for name, pair in layers.items():
            found = [differences(*pair(case)) for case in cases]
            row = [float(np.max([d[part] for d in found])) for part in PARTS]  # keeps NaN
            print(f"{peer + ' ' + name:30}" + "".join(f"{x:10.1e}" for x in row), flush=True)
            worst += row
    if not np.max(worst) <= arguments.tolerance:
        sys.exit(f"a difference is above {arguments.tolerance}")


if __name__ == "__main__":
    main()
