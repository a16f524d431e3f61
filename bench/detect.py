#!/usr/bin/env python3
"""Times the recommended FlowTransformer against the same network in PyTorch, on the same flows and threads.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/detect.py

The network: record embedding of width 64, two encoder blocks of inner size 128 with 2 heads, last token, windows of 8
flows with the columns of NSL-KDD (34 numbers, 60 codes). Timed are a training step (128 windows: drawing, gathering,
both passes, Adam), the score of one flow, and the scores of all flows of a file in memory (PyTorch: in batches of
1024 windows gathered from a matrix with a column for each code, which it is given). Both run in turn; the ratio is
that of the fastest runs. PyTorch gets our weights, and its scores are compared with ours. Above 1, ours is faster.
BENCH_OURS names another build of papertrial-bench.
"""

import json
import os
import struct
import subprocess
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
FLOWS = int(os.environ.get("BENCH_FLOWS", "20000"))
STEPS = 100
REPEATS = 2
ROUNDS = 3
WINDOW = 8
NUMBERS, CODES = 34, [4, 33, 12, 3, 3, 2, 3]
WIDTH = NUMBERS + sum(CODES)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(64, 256) for _ in range(3))
        self.out = nn.Linear(256, 64)

    def forward(self, x, at):
        def split(t):
            return t.view(t.shape[0], t.shape[1], 2, 128).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(at)), split(self.value(at))
        seen = F.scaled_dot_product_attention(q, k, v)
        return self.out(seen.transpose(1, 2).reshape(x.shape[0], x.shape[1], 256))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.first, self.second = nn.LayerNorm(64, 1e-6), nn.LayerNorm(64, 1e-6)
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, last):
        # As in ours, the last block computes only the position that is read.
        start = x[:, -1:] if last else x
        u = self.first(start + self.dropout(self.attention(start, x)))
        return self.second(u + self.dropout(self.down(F.relu(self.up(u)))))


class FlowTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.record = nn.Linear(WIDTH, 64)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.hidden, self.out = nn.Linear(64, 128), nn.Linear(128, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        x = self.record(x)
        x = self.blocks[1](self.blocks[0](x, False), True)[:, 0]
        return self.out(self.dropout(F.relu(self.hidden(x))))[:, 0]


def tensors(path):
    """The tensors of a safetensors file."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, facts in header.items():
        begin, end = (8 + length + o for o in facts["data_offsets"])
        found[name] = torch.from_numpy(np.frombuffer(content[begin:end], "<f4").reshape(facts["shape"]).copy())
    return found


def weights(path):
    """Our weights under PyTorch's names; linear layers hold [inputs, outputs] on our side."""
    names = {"encode.record": "record", "classify.hidden": "hidden", "classify.out": "out"}
    state = {}
    for name, tensor in tensors(path).items():
        module, kind = name.rsplit(".", 1)
        module = names.get(module, module.removeprefix("stack."))
        if kind in ("gain", "offset"):
            state[f"{module}.{'weight' if kind == 'gain' else 'bias'}"] = tensor
        else:
            state[f"{module}.{kind}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return state


def matrix(folder):
    """The flows with a column for each code."""
    numbers = np.fromfile(os.path.join(folder, "numbers"), "<f4").reshape(-1, NUMBERS)
    codes = np.fromfile(os.path.join(folder, "codes"), "<u4").reshape(-1, len(CODES))
    parts = [numbers] + [np.eye(n, dtype="f4")[codes[:, j]] for j, n in enumerate(CODES)]
    return torch.from_numpy(np.concatenate(parts, 1))


def fastest(body, repeats, warm=0):
    best = np.inf
    for at in range(warm + repeats):
        start = time.perf_counter()
        body()
        if at >= warm:
            best = min(best, time.perf_counter() - start)
    return best


def steps(start, flows, attack):
    """Mean seconds of a training step, the first left out."""
    model = FlowTransformer()
    model.load_state_dict(start)
    model.train()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    ends = np.arange(WINDOW - 1, len(flows))
    pools = [ends[attack[ends]], ends[~attack[ends]]]
    before = np.arange(1 - WINDOW, 1)
    rng = np.random.default_rng(0)
    wanted = torch.cat([torch.ones(64), torch.zeros(64)])
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        rows = np.concatenate([p[rng.integers(0, len(p), 64)] for p in pools])
        x = flows[torch.from_numpy(rows[:, None] + before)]
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(model(x), wanted).backward()
        adam.step()
        seconds.append(time.perf_counter() - begin)
    return float(np.mean(seconds[1:]))


def main():
    best = {"step": [np.inf] * 2, "single": [np.inf] * 2, "whole": [np.inf] * 2}

    def take(what, side, seconds):
        best[what][side] = min(best[what][side], seconds)

    with tempfile.TemporaryDirectory(prefix="papertrial-bench-") as folder:
        for _ in range(ROUNDS):
            words = [OURS, "detect", folder, str(FLOWS), str(STEPS), str(REPEATS)]
            us = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            take("step", 0, us["step"])
            take("single", 0, min(us["single"]))
            take("whole", 0, min(us["whole"]))

            flows = matrix(folder)
            state = weights(os.path.join(folder, "weights.safetensors"))
            model = FlowTransformer()
            model.load_state_dict(state)
            model.eval()
            assert sum(p.numel() for p in model.parameters()) == us["parameters"]
            before = torch.arange(1 - WINDOW, 1)
            ends = torch.arange(WINDOW - 1, len(flows))

            def whole():
                with torch.inference_mode():
                    parts = [torch.sigmoid(model(flows[e[:, None] + before])) for e in ends.split(1024)]
                    return torch.cat(parts)

            def single():
                with torch.inference_mode():
                    for end in range(WINDOW - 1, WINDOW + 199):
                        torch.sigmoid(model(flows[None, end + 1 - WINDOW : end + 1]))

            take("whole", 1, fastest(whole, REPEATS, 1))
            take("single", 1, fastest(single, REPEATS, 1) / 200)
            attack = np.random.default_rng(1).random(len(flows)) < 0.5
            take("step", 1, steps(state, flows, attack))
            scores = np.fromfile(os.path.join(folder, "scores"), "<f4")
            gap = np.abs(whole().numpy() - scores).max()
            assert gap < 1e-4, gap

    print(f"FlowTransformer, {us['parameters']:,} parameters, {THREADS} threads; scores equal to {gap:.0e}")
    for what, title in (("step", "training step"), ("single", "one flow"), ("whole", f"{FLOWS:,} flows")):
        ours, peer = best[what]
        rate = f"   ours {FLOWS / ours:,.0f} flows/s" if what == "whole" else ""
        print(f"{title:<24} ours {ours * 1e3:9.4f} ms   peer {peer * 1e3:9.4f} ms   ratio {peer / ours:6.2f}{rate}")


if __name__ == "__main__":
    main()
