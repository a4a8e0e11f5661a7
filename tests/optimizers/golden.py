"""Makes golden.npz: trajectories of the optimizers of PyTorch and Keras.

Made with Python 3.11, torch 2.13.0 (CPU), keras 3.15.1 on its torch backend and numpy 2.4.6:

    python -m venv golden && golden/bin/pip install torch==2.13.0 keras==3.15.1 numpy==2.4.6
    KERAS_BACKEND=torch golden/bin/python tests/optimizers/golden.py

Everything is float64. Two parameters, ``w [3, 2]`` and ``b [2]``, start at ``start/w`` and
``start/b``, and are given the same STEPS gradients ``gradients/w [STEPS, 3, 2]`` whatever their
values. ``torch/NAME/w [STEPS, 3, 2]`` and the like are the parameters after every step. Names
that end in ``_tuned`` have an epsilon large enough to show where it is added.
"""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

STEPS = 20
RATE = 0.05
HALVED_AFTER = 10
TUNED = 0.1  # epsilon

optim = torch.optim
TORCH = {
    "sgd": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9}),
    "nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.Adam, {}),
    "adam_tuned": (optim.Adam, {"betas": (0.8, 0.95), "eps": TUNED}),
    "adamw": (optim.AdamW, {}),
    "adamw_tuned": (optim.AdamW, {"betas": (0.8, 0.95), "eps": TUNED, "weight_decay": 0.3}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop_tuned": (optim.RMSprop, {"alpha": 0.8, "eps": TUNED}),
    "rmsprop_momentum": (optim.RMSprop, {"momentum": 0.7, "eps": TUNED}),
    "rmsprop_centered": (optim.RMSprop, {"centered": True, "eps": TUNED}),
    "rmsprop_both": (optim.RMSprop, {"centered": True, "momentum": 0.7, "eps": TUNED}),
    "adagrad": (optim.Adagrad, {}),
    "adagrad_tuned": (optim.Adagrad, {"initial_accumulator_value": 0.3, "eps": TUNED}),
    "adadelta": (optim.Adadelta, {}),
    "adadelta_tuned": (optim.Adadelta, {"rho": 0.8, "eps": TUNED}),
    "adamax": (optim.Adamax, {}),
    "adamax_tuned": (optim.Adamax, {"betas": (0.8, 0.95), "eps": TUNED}),
    "nadam": (optim.NAdam, {}),
    "nadam_tuned": (optim.NAdam, {"betas": (0.8, 0.95), "eps": TUNED, "momentum_decay": 0.5}),
}

optimizers = keras.optimizers
KERAS = {
    "sgd": (optimizers.SGD, {}),
    "momentum": (optimizers.SGD, {"momentum": 0.9}),
    "nesterov": (optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optimizers.Adam, {"epsilon": TUNED}),
    "adamw": (optimizers.AdamW, {"epsilon": TUNED, "weight_decay": 0.3}),
    "rmsprop": (optimizers.RMSprop, {"epsilon": TUNED}),
    "rmsprop_centered": (optimizers.RMSprop, {"centered": True, "epsilon": TUNED}),
    "rmsprop_momentum": (optimizers.RMSprop, {"momentum": 0.7, "epsilon": TUNED}),
    "adagrad": (optimizers.Adagrad, {"epsilon": TUNED}),
    "adadelta": (optimizers.Adadelta, {"epsilon": TUNED}),
    "adamax": (optimizers.Adamax, {"beta_2": 0.8, "epsilon": TUNED}),
    "nadam": (optimizers.Nadam, {"epsilon": TUNED}),
}


def make_inputs(rng):
    """Starting point and gradients, over four orders of magnitude and with zeros."""
    shapes = {"w": (3, 2), "b": (2,)}
    arrays = {f"start/{name}": rng.normal(size=shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        size = 10.0 ** rng.uniform(-3, 1, size=(STEPS, *shape))
        arrays[f"gradients/{name}"] = rng.normal(size=(STEPS, *shape)) * size
    arrays["gradients/w"][:, 0, 0] = 0  # never a gradient
    arrays["gradients/w"][:5, 1, 1] = 0  # none at first
    arrays["gradients/b"][8:, 0] = 0  # none any more
    return arrays


def torch_run(arrays, make, *, halve=False):
    """Parameters after every step of ``make(parameters)``."""
    values = {n: torch.nn.Parameter(torch.tensor(arrays[f"start/{n}"])) for n in ("w", "b")}
    optimizer = make(values)
    path = {name: [] for name in values}
    for step in range(STEPS):
        if halve and step == HALVED_AFTER:
            optimizer.param_groups[0]["lr"] /= 2
        for name, value in values.items():
            value.grad = torch.tensor(arrays[f"gradients/{name}"][step])
        optimizer.step()
        for name, value in values.items():
            path[name].append(value.detach().numpy().copy())
    return path


def keras_run(arrays, optimizer, *, halve=False):
    """Parameters after every step of a Keras optimizer."""
    values = {n: keras.Variable(arrays[f"start/{n}"], dtype="float64") for n in ("w", "b")}
    path = {name: [] for name in values}
    for step in range(STEPS):
        if halve and step == HALVED_AFTER:
            optimizer.learning_rate = RATE / 2
        gradients = [torch.tensor(arrays[f"gradients/{name}"][step]) for name in values]
        optimizer.apply(gradients, list(values.values()))
        for name, value in values.items():
            path[name].append(value.numpy().copy())
    return path


def torch_clipped(values):
    """SGD whose step first clips the gradients by value and then by global norm."""
    optimizer = optim.SGD(values.values(), lr=RATE)

    def clip(*_):
        torch.nn.utils.clip_grad_value_(values.values(), 2.0)
        torch.nn.utils.clip_grad_norm_(values.values(), 1.5)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def torch_masked(values):
    """AdamW that decays ``w`` and leaves ``b`` alone."""
    groups = [
        {"params": [values["w"]], "weight_decay": 0.3},
        {"params": [values["b"]], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=RATE)


def torch_rates(make, losses=None):
    """Learning rate of every step under a scheduler, the peak being 1."""
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for step in range(STEPS if losses is None else len(losses)):
        if losses is None:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step + 1 < STEPS:
                scheduler.step()
        else:
            scheduler.step(losses[step])
            rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def main():
    """Write golden.npz beside this file."""
    keras.config.set_floatx("float64")
    torch.set_default_dtype(torch.float64)  # of NAdam's running product, float32 otherwise
    arrays = make_inputs(np.random.default_rng(20))
    paths = {}
    for name, (cls, options) in TORCH.items():
        paths[f"torch/{name}"] = torch_run(
            arrays, lambda v, c=cls, o=options: c(v.values(), lr=RATE, **o)
        )
    for name, (cls, options) in KERAS.items():
        paths[f"keras/{name}"] = keras_run(arrays, cls(learning_rate=RATE, **options))
    paths["torch/clipped"] = torch_run(arrays, torch_clipped)
    paths["torch/adamw_masked"] = torch_run(arrays, torch_masked)
    for name in ("momentum", "nesterov"):
        cls, options = TORCH[name]
        paths[f"torch/{name}_halved"] = torch_run(
            arrays, lambda v, c=cls, o=options: c(v.values(), lr=RATE, **o), halve=True
        )
        cls, options = KERAS[name]
        paths[f"keras/{name}_halved"] = keras_run(
            arrays, cls(learning_rate=RATE, **options), halve=True
        )
    for run, path in paths.items():
        arrays |= {f"{run}/{name}": np.stack(values) for name, values in path.items()}

    schedulers = optim.lr_scheduler
    arrays["torch/one_cycle"] = torch_rates(
        lambda o: schedulers.OneCycleLR(o, max_lr=1.0, total_steps=STEPS, cycle_momentum=False)
    )
    losses = np.random.default_rng(21).uniform(1.0, 2.0, size=40)
    losses[:10] += np.linspace(5.0, 1.0, 10)  # falls at first, only wanders later
    arrays["losses"] = losses
    arrays["torch/plateau"] = torch_rates(
        lambda o: schedulers.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=3), losses
    )
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()
