#!/usr/bin/env python3
"""Times papertrial's neural operations and networks against PyTorch, on the same numbers and threads.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/neural.py [operations convolution transformer cnn]

Each pair is run in turn, in several rounds of many repeats; the ratio is that of the fastest runs. Equal results are
checked: outputs and gradients of the same numbers, and the losses of training from the same weights. Above 1, ours is
faster. BENCH_OURS names another build of papertrial-bench.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import numpy as np  # noqa: E402  (the threads must be set first)
import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(THREADS)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = os.environ.get("BENCH_OURS", os.path.join(ROOT, "target", "release", "papertrial-bench"))
FOLDER = tempfile.mkdtemp(prefix="papertrial-bench-")
ROUNDS = 4
WARM = 3


def save(name, array):
    np.ascontiguousarray(array, dtype="<f4").tofile(os.path.join(FOLDER, name))


def ours(what, repeats):
    words = [OURS, "neural", what, FOLDER, str(repeats)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def out():
    return np.fromfile(os.path.join(FOLDER, "out"), dtype="<f4")


def in_turn(what, repeats, peer):
    """Fastest seconds of both, run in turn."""
    fastest = [np.inf, np.inf]
    for _ in range(ROUNDS):
        fastest[0] = min(fastest[0], min(ours(what, repeats)["seconds"]))
        for _ in range(WARM + repeats):
            start = time.perf_counter()
            peer()
            fastest[1] = min(fastest[1], time.perf_counter() - start)
    return fastest


def tell(name, fastest, gap):
    print(
        f"{name:<58} ours {fastest[0] * 1e3:8.3f} ms   peer {fastest[1] * 1e3:8.3f} ms   "
        f"ratio {fastest[1] / fastest[0]:6.2f}   equal to {gap:.0e}",
        flush=True,
    )


def check(name, found, expected, allowed):
    expected = np.asarray(expected).ravel()
    gap = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    assert gap < allowed, (name, gap)
    return gap


def pair(name, title, function, x, weights, allowed, repeats):
    """Forward, and forward with backward, of one function."""
    save("x", x)
    save("weights", weights)
    x = torch.from_numpy(x)
    weights = torch.from_numpy(weights)

    def forward():
        with torch.no_grad():
            return function(x, weights)

    fastest = in_turn(name, repeats, forward)
    tell(f"{title}, forward", fastest, check(name, out(), forward().numpy(), allowed))

    leaf = x.clone().requires_grad_()
    second = weights.clone().requires_grad_()

    def back():
        leaf.grad = second.grad = None
        y = function(leaf, second)
        y.backward(torch.ones_like(y))

    fastest = in_turn(f"{name}-back", repeats, back)
    leaf.grad = None
    y = function(leaf, second)
    y.backward(torch.ones_like(y) if name == "conv" else weights)
    tell(f"{title}, forward and backward", fastest, check(name, out(), leaf.grad.numpy(), allowed))


def operations():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (4096, 512)).astype("f4")
    weights = rng.normal(size=(4096, 512)).astype("f4")
    for name, function in (
        ("gelu", lambda x, _: F.gelu(x)),
        ("tanh", lambda x, _: torch.tanh(x)),
        ("sigmoid", lambda x, _: torch.sigmoid(x)),
        ("silu", lambda x, _: F.silu(x)),
        ("softmax", lambda x, _: F.softmax(x, -1)),
        ("log_softmax", lambda x, _: F.log_softmax(x, -1)),
        ("layer_norm", lambda x, _: F.layer_norm(x, (512,), torch.ones(512), torch.zeros(512))),
    ):
        pair(name, f"{name} 4096 x 512", function, x, weights, 1e-5, 20)


def convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 32, 32, 32)).astype("f4")
    weights = rng.normal(size=(32, 32, 3, 3)).astype("f4")
    pair("conv", "convolution 3 x 3, 16 x 32 x 32 x 32", lambda x, w: F.conv2d(x, w, padding=1), x, weights, 1e-5, 10)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x):
        def split(t):
            return t.view(x.shape[0], x.shape[1], 2, 32).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        seen = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, -1) @ v
        return self.out(seen.transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm_1 = Attention(), nn.LayerNorm(64)
        self.first, self.second, self.norm_2 = nn.Linear(64, 128), nn.Linear(128, 64), nn.LayerNorm(64)

    def forward(self, x):
        x = self.norm_1(x + self.attention(x))
        return self.norm_2(x + self.second(F.gelu(self.first(x))))


class Small(nn.Module):
    """The small transformer; its modules stand in the order in which ours holds its parameters."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(128, 64)
        self.positions = nn.Parameter(torch.randn(8, 64) * 0.02)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        x = self.input(x) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(F.gelu(self.hidden(x[:, -1])))

    def flat(self):
        every = dict(self.named_parameters())
        # PyTorch names a module's own parameters first; ours holds the positions after the first layer.
        order = [n for n in every if n != "positions"]
        order.insert(2, "positions")
        return order, every


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.hidden, self.head = nn.Linear(64 * 8 * 8, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))

    def flat(self):
        every = dict(self.named_parameters())
        return list(every), every


def network(name, title, new, shape, repeats):
    torch.manual_seed(0)
    start = new()
    order, every = start.flat()
    # Linear layers hold [inputs, outputs] on our side.
    parts = [every[n].detach().numpy() for n in order]
    turned = [p.T if p.ndim == 2 and n.endswith("weight") else p for n, p in zip(order, parts)]
    save("weights", np.concatenate([p.ravel() for p in turned]))
    x = torch.randn(*shape)
    save("x", x.numpy())
    classes = torch.arange(shape[0]) % 10

    def scores():
        with torch.no_grad():
            return start(x)

    fastest = in_turn(f"{name}-infer", repeats, scores)
    gap = check(name, out(), scores().numpy(), 1e-4)
    tell(f"{title}, {shape[0]} rows, inference", fastest, gap)

    fastest = [np.inf, np.inf]
    for _ in range(ROUNDS):
        us = ours(f"{name}-step", repeats)
        fastest[0] = min(fastest[0], min(us["seconds"]))
        model = new()
        model.load_state_dict(start.state_dict())
        adam = torch.optim.Adam(model.parameters(), 1e-3)
        losses = []
        for at in range(WARM + repeats):
            begin = time.perf_counter()
            adam.zero_grad()
            loss = F.cross_entropy(model(x), classes)
            loss.backward()
            adam.step()
            losses.append(loss.item())
            if at >= WARM:
                fastest[1] = min(fastest[1], time.perf_counter() - begin)
    gap = check(name, np.array(us["losses"]), losses, 1e-2)
    tell(f"{title}, {shape[0]} rows, training step", fastest, gap)


def transformer():
    network("transformer", "transformer, 80,522 parameters", Small, (128, 8, 128), 20)
    network("transformer", "transformer, 80,522 parameters", Small, (1024, 8, 128), 10)


def cnn():
    network("cnn", "small CNN, 32 x 32 x 32", Cnn, (16, 32, 32, 32), 10)


if __name__ == "__main__":
    every = {"operations": operations, "convolution": convolution, "transformer": transformer, "cnn": cnn}
    for name in sys.argv[1:] or every:
        every[name]()
