"""Trains the fully connected networks of Brevitas' BNN-PYNQ examples with Brevitas' own model, loss and recipe, on one thread.

The recipe is trainer.py's of brevitas_examples.bnn_pynq 0.10.3: Adam at 0.02, halved after every 40th epoch, batches of 100,
squared hinge loss on targets of -1 and 1, weights clipped to [-1, 1] after every step, the test split scored after every epoch.
Only the loader differs: images stay in memory as tensors, with the values of torchvision's ToTensor. (Brevitas' own program
ends one epoch before the number it is given; this one does not.)

--plain replaces the quantizers' modules, which take most of the time of so small a network, by two functions. The first epochs
print the same loss and accuracy to the last digit either way.

    python3 -m venv --system-site-packages brevitas                   # beside Debian's python3-torch, libopenblas0-pthread
    brevitas/bin/pip install --no-deps brevitas==0.10.3 dependencies==2.0.1
    brevitas/bin/python bench/brevitas_fc.py --data FOLDER --network tfc_2w2a --epochs 500 --seed 1 --plain --out tfc.jsonl

FOLDER holds MNIST's four idx files, plain or as .gz. Every epoch becomes a line of the output file.
"""

import argparse
import configparser
import gzip
import json
import os
import struct
import time

import numpy as np
import torch
import brevitas_examples.bnn_pynq.models as models
from brevitas_examples.bnn_pynq.models.FC import fc
from brevitas_examples.bnn_pynq.models.losses import SqrHingeLoss

BATCH, RATE, HALVED_EVERY = 100, 0.02, 40


class Round(torch.autograd.Function):
    """rint(x) held to [-1, 1], halves to even; the gradient passes where the rounded value was inside."""

    @staticmethod
    def forward(ctx, x):
        y = x.round()
        ctx.save_for_backward(y.abs() <= 1)
        return y.clamp_(-1, 1)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.saved_tensors[0]


class Sign(torch.autograd.Function):
    """The sign of x, that of 0 being 1; the gradient passes where x is in [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.abs() <= 1)
        return (x >= 0).float().mul_(2).sub_(1)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.saved_tensors[0]


class Plain(torch.nn.Module):
    """Brevitas' network with functions in place of its quantizers' modules; weights and norms are the same objects."""

    def __init__(self, net, weight_bits, act_bits):
        super().__init__()
        self.features, self.clip_weights = net.features, net.clip_weights
        quantizers = {1: Sign.apply, 2: Round.apply}
        self.weight, self.act = quantizers[weight_bits], quantizers[act_bits]

    def forward(self, x):
        x = 2.0 * x.view(x.shape[0], -1) - 1.0
        for m in self.features:
            kind = type(m).__name__
            if kind == "QuantIdentity":
                x = self.act(x)
            elif kind == "QuantLinear":
                x = torch.nn.functional.linear(x, self.weight(m.weight))
            else:
                x = m(x)
        return x


def idx(folder, name):
    """The array of an idx file of bytes."""
    path = os.path.join(folder, name)
    with open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz", "rb") as f:
        data = f.read()
    dims = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims).copy())


def images(folder, split):
    x = idx(folder, split + "-images-idx3-ubyte").float().div(255).unsqueeze(1)
    return x, idx(folder, split + "-labels-idx1-ubyte").long()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder of MNIST's idx files")
    p.add_argument("--network", default="tfc_2w2a", help="tfc_2w2a, tfc_1w2a, tfc_1w1a, or sfc and lfc alike")
    p.add_argument("--epochs", type=int, default=500, help="1000 for 1W1A, else 500")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--plain", action="store_true", help="the same arithmetic without Brevitas' quantizer modules")
    p.add_argument("--out", required=True, help="file for a line of JSON per epoch")
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(a.seed)
    cfg = configparser.ConfigParser()
    cfg.read(os.path.join(os.path.dirname(models.__file__), "..", "cfg", a.network + ".ini"))
    net = fc(cfg)
    if a.plain:
        net = Plain(net, cfg.getint("QUANT", "WEIGHT_BIT_WIDTH"), cfg.getint("QUANT", "ACT_BIT_WIDTH"))
    x, y = images(a.data, "train")
    test_x, test_y = images(a.data, "t10k")
    target = torch.full((len(y), 10), -1.0).scatter_(1, y.unsqueeze(1), 1)
    loss_of, adam = SqrHingeLoss(), torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=0)
    best, best_epoch, began = 0.0, 0, time.time()
    with open(a.out, "w") as log:
        for epoch in range(1, a.epochs + 1):
            net.train()
            for b in torch.randperm(len(y)).split(BATCH):
                loss = loss_of(net(x[b]), target[b])
                adam.zero_grad()
                loss.backward()
                adam.step()
                net.clip_weights(-1, 1)
            if epoch % HALVED_EVERY == 0:
                adam.param_groups[0]["lr"] *= 0.5
            net.eval()
            with torch.no_grad():
                right = sum((net(i).argmax(1) == j).sum().item() for i, j in zip(test_x.split(1000), test_y.split(1000)))
            accuracy = 100 * right / len(test_y)
            if accuracy > best:
                best, best_epoch = accuracy, epoch
            print(json.dumps({"epoch": epoch, "test": accuracy, "best": best, "best_epoch": best_epoch, "loss": loss.item(),
                              "seconds": round(time.time() - began, 1)}), file=log, flush=True)


if __name__ == "__main__":
    main()
