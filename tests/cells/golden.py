"""Makes golden.npz: what PyTorch's LSTM with proj_size computes, and its gradients.

Made with Python 3.11, torch 2.13.0 (CPU) and numpy 2.4.6:

    python -m venv golden && golden/bin/pip install torch==2.13.0 numpy==2.4.6
    golden/bin/python tests/cells/golden.py

Everything is float64, and batch-major. ``weights/KEY`` is the state_dict of one layer; it starts
from ``start/c [B, H]`` and ``start/h [B, P]``, reads ``xs [B, T, D]``, and gives ``ys [B, T, P]``
and ``final/c`` and ``final/h``. ``gradients/KEY`` are those of ``sum(sin(3 ys)) + sum(final/c)``.
"""

from pathlib import Path

import numpy as np
import torch

B, T, D, H, P = 3, 5, 4, 6, 2


def main():
    rng = np.random.default_rng(12)
    layer = torch.nn.LSTM(D, H, proj_size=P, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.tensor(rng.normal(size=weight.shape)))
    xs, c, h = (torch.tensor(rng.normal(size=s)) for s in [(B, T, D), (1, B, H), (1, B, P)])
    record = {"xs": xs, "start/c": c[0], "start/h": h[0]}
    ys, (final_h, final_c) = layer(xs, (h, c))
    (torch.sin(3 * ys).sum() + final_c.sum()).backward()
    record |= {"ys": ys, "final/c": final_c[0], "final/h": final_h[0]}
    for name, weight in layer.named_parameters():
        record |= {f"weights/{name}": weight, f"gradients/{name}": weight.grad}
    arrays = {name: value.detach().numpy() for name, value in record.items()}
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **arrays)


if __name__ == "__main__":
    main()
