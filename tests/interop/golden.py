"""Makes golden.npz: what recurrent layers of PyTorch and Keras compute, and their gradients.

Made with Python 3.11, torch 2.13.0 (CPU), keras 3.15.1 on its torch backend and numpy 2.4.6:

    python -m venv golden && golden/bin/pip install torch==2.13.0 keras==3.15.1 numpy==2.4.6
    KERAS_BACKEND=torch golden/bin/python tests/interop/golden.py

That takes seconds, and gives the same arrays every time.

Everything is float32. ``torch/NAME/weights/KEY`` is the state_dict of a case, and
``keras/NAME/weights/0`` and so on the list of a layer (of the cells of a stack, one after the
other). ``xs [B, T, D]`` are read under ``mask
[B, T]``, all real where a case has none; the outputs are ``ys [B, T, H]`` (zero at padded steps)
and the final states ``h`` and, for LSTM, ``c``, [layers and directions, B, H] (ys and h are P
wide for every direction where there is a projection; images come before the features). The loss is
``sum(ys * pull_ys) + sum(h * pull_h) + sum(c * pull_c)``; ``gradients/KEY`` are its gradients
by the weights and ``gradient_xs`` that by the inputs.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

B, T, D, H, P = 4, 6, 3, 5, 2
IMAGE, KERNEL, FILTERS = (3, 4), (3, 2), 2
LENGTHS = np.array([3, 6, 1, 4])  # PyTorch packs no row of length 0
GAPS = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool
)

TORCH = {
    "rnn_tanh": (torch.nn.RNN, {}),
    "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
    "lstm_layers": (torch.nn.LSTM, {"num_layers": 2}),
    "gru_layers": (torch.nn.GRU, {"num_layers": 2}),
    "rnn_tanh_ragged": (torch.nn.RNN, {"bidirectional": True}),
    "rnn_relu_both": (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    "lstm_both": (torch.nn.LSTM, {"bidirectional": True}),
    "gru_ragged": (torch.nn.GRU, {"bidirectional": True}),
    "lstm_layers_both_ragged": (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "gru_layers_both_ragged": (torch.nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "lstm_projected": (torch.nn.LSTM, {"proj_size": P}),
    "lstm_projected_layers_both_ragged": (
        torch.nn.LSTM,
        {"proj_size": P, "num_layers": 2, "bidirectional": True},
    ),
    "lstm_unbiased_layers": (torch.nn.LSTM, {"bias": False, "num_layers": 2}),
    "gru_unbiased_both": (torch.nn.GRU, {"bias": False, "bidirectional": True}),
    "rnn_relu_cell": (torch.nn.RNNCell, {"nonlinearity": "relu"}),
    "lstm_cell": (torch.nn.LSTMCell, {}),
    "lstm_unbiased_cell": (torch.nn.LSTMCell, {"bias": False}),
    "gru_cell": (torch.nn.GRUCell, {}),
}

KERAS = {
    "rnn": (keras.layers.SimpleRNN, {}),
    "lstm": (keras.layers.LSTM, {}),
    "gru_after": (keras.layers.GRU, {"reset_after": True}),
    "gru_before": (keras.layers.GRU, {"reset_after": False}),
    "rnn_relu": (keras.layers.SimpleRNN, {"activation": "relu"}),
    "lstm_both": (keras.layers.LSTM, {}),
    "gru_before_both": (keras.layers.GRU, {"reset_after": False}),
    "lstm_unbiased": (keras.layers.LSTM, {"use_bias": False}),
    "gru_after_unbiased": (keras.layers.GRU, {"use_bias": False}),
    "gru_before_unbiased_both": (keras.layers.GRU, {"use_bias": False, "reset_after": False}),
    "stacked": (None, {}),
    "conv_lstm": (keras.layers.ConvLSTM2D, {"kernel_size": KERNEL, "padding": "same"}),
    "conv_lstm_unbiased": (
        keras.layers.ConvLSTM1D,
        {"kernel_size": 2, "padding": "same", "use_bias": False},
    ),
}


def normal(rng, shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


def loss_of(results, rng, record):
    """Pull every result by random numbers, kept beside it."""
    loss = 0.0
    for name, value in results.items():
        pull = normal(rng, value.shape)
        record |= {name: value.detach().numpy(), f"pull_{name}": pull.numpy()}
        loss = loss + (value * pull).sum()
    return loss


def torch_case(name, rng):
    kind, options = TORCH[name]
    cell = name.endswith("cell")
    module = kind(D, H, **options) if cell else kind(D, H, batch_first=True, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * normal(rng, parameter.shape))
    xs = normal(rng, (B, T, D)).requires_grad_()
    record = {"xs": xs.detach().numpy()}
    if cell:
        ys, final = over_time(module, xs)
    elif name.endswith("ragged"):
        packed = pack_padded_sequence(xs, LENGTHS, batch_first=True, enforce_sorted=False)
        packed_ys, final = module(packed)
        ys, _ = pad_packed_sequence(packed_ys, batch_first=True, total_length=T)
        record["mask"] = np.arange(T) < LENGTHS[:, None]
    else:
        ys, final = module(xs)
    states = {"h": final[0], "c": final[1]} if name.startswith("lstm") else {"h": final}
    loss_of({"ys": ys, **states}, rng, record).backward()
    record["gradient_xs"] = xs.grad.numpy()
    for key, parameter in module.named_parameters():
        record[f"weights/{key}"] = parameter.detach().numpy()
        record[f"gradients/{key}"] = parameter.grad.numpy()
    return record


def over_time(cell, xs):
    """Outputs of a cell, and its last state with a leading axis of one layer."""
    state, ys = None, []
    for x in xs.unbind(1):
        state = cell(x, state)
        ys.append(state[0] if isinstance(state, tuple) else state)
    final = tuple(x[None] for x in state) if isinstance(state, tuple) else state[None]
    return torch.stack(ys, 1), final


def keras_layer(name):
    """The layer, and the names of its states in order."""
    kind, options = KERAS[name]
    every_step = {"return_sequences": True, "return_state": True}
    if name == "stacked":
        cells = [keras.layers.LSTMCell(H), keras.layers.GRUCell(H - 1)]
        return keras.layers.RNN(cells, **every_step), None
    layer = kind(FILTERS if name.startswith("conv") else H, **every_step, **options)
    if name.endswith("both"):
        layer = keras.layers.Bidirectional(layer)
    return layer, "hc" if "lstm" in name else "h"


def keras_case(name, rng):
    layer, kinds = keras_layer(name)
    image = {"conv_lstm": IMAGE, "conv_lstm_unbiased": IMAGE[:1]}.get(name, ())
    layer.build((B, T, *image, D))
    weights = [(0.5 * rng.normal(size=w.shape)).astype("float32") for w in layer.get_weights()]
    layer.set_weights(weights)
    xs = normal(rng, (B, T, *image, D)).requires_grad_()
    mask = torch.tensor(GAPS)
    ys, *states = layer(xs, mask=mask)
    # Keras repeats the last output at masked steps; those are not compared.
    results = {"ys": ys * mask.reshape(B, T, *[1] * (ys.ndim - 2))}
    if kinds is None:  # the states of cells of two kinds are not stacked: h, c, and h
        (h, c), (top,) = states
        results |= {"h0": h, "c0": c, "h1": top}
    else:  # h alone, or h and c, of one direction after the other
        results |= {key: torch.stack(states[k :: len(kinds)]) for k, key in enumerate(kinds)}
    record = {"xs": xs.detach().numpy(), "mask": GAPS}
    loss_of(results, rng, record).backward()
    record["gradient_xs"] = xs.grad.numpy()
    for number, (weight, variable) in enumerate(zip(weights, layer.weights, strict=True)):
        record[f"weights/{number}"] = weight
        record[f"gradients/{number}"] = variable.value.grad.numpy()
    return record


def main():
    golden = {}
    for framework, cases, make in (("torch", TORCH, torch_case), ("keras", KERAS, keras_case)):
        for name in cases:
            # A case keeps its arrays when others join.
            rng = np.random.default_rng([*framework.encode(), *name.encode()])
            golden |= {f"{framework}/{name}/{k}": v for k, v in make(name, rng).items()}
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **golden)


if __name__ == "__main__":
    main()
