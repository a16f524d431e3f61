#!/usr/bin/env python3
"""Times an epoch of RQGNN against the same network in plain PyTorch with sparse products, on the same graphs.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/graph.py [graphs [epochs]]

The graphs are made here: molecules of about 26 atoms of 46 kinds, 8 % of them anomalous, in the TUDataset format. Both
sides learn from 70 % of them in batches of 512 graphs, shuffled and joined anew in each epoch; the quotients are computed
once. The peer is timed in two forms: with each of the four filters computing its own Chebyshev terms, as its layers are
usually written, and with the terms computed once for all. The ratio is that of the fastest epochs of the peer and our
mean epoch; above 1, ours is faster. Equal results are checked: with our trained weights the peer gives our scores.
BENCH_OURS names another build of papertrial-bench.
"""

import json
import os
import struct
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
KINDS, HIDDEN, WIDTH, DEPTH, BATCH = 46, 64, 4, 6, 512


def molecule(rng, anomalous):
    """Edges, each once, and the kind of each atom: a random tree of degree 4 at most, with some rings."""
    n = int(np.clip(rng.normal(26, 8), 8, 60))
    degree = np.zeros(n, int)
    edges = []
    for i in range(1, n):
        j = int(rng.integers(max(0, i - 4), i))
        while degree[j] >= 4:
            j = (j + 1) % i
        edges.append((j, i))
        degree[[i, j]] += 1
    for _ in range(int(rng.integers(0, 4)) + 2 * anomalous):
        i = int(rng.integers(0, n - 5))
        if degree[i] < 4 and degree[i + 5] < 4 and (i, i + 5) not in edges:
            edges.append((i, i + 5))
            degree[[i, i + 5]] += 1
    kinds = np.minimum(rng.zipf(1.8, n) - 1, KINDS - 1)
    return np.array(edges).T, kinds


def written(folder, graphs, labels):
    first = 1
    text = {"A": [], "graph_indicator": [], "graph_labels": [], "node_labels": []}
    for g, ((edges, kinds), label) in enumerate(zip(graphs, labels)):
        for a, b in edges.T:
            text["A"] += [f"{a + first}, {b + first}", f"{b + first}, {a + first}"]
        text["graph_indicator"] += [str(g + 1)] * len(kinds)
        text["node_labels"] += [str(k) for k in kinds]
        text["graph_labels"].append(str(int(label)))
        first += len(kinds)
    os.makedirs(folder)
    for part, lines in text.items():
        with open(os.path.join(folder, f"B_{part}.txt"), "w") as file:
            file.write("\n".join(lines) + "\n")


class Prepared:
    """A graph as arrays: rows, columns and values of -D^(-1/2) A D^(-1/2), features, quotients."""

    def __init__(self, edges, kinds):
        n = len(kinds)
        self.rows = np.concatenate([edges[0], edges[1]])
        self.columns = np.concatenate([edges[1], edges[0]])
        degree = np.bincount(self.rows, minlength=n).astype("f4")
        scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0).astype("f4")
        self.values = -scale[self.rows] * scale[self.columns]
        self.x = np.zeros((n, KINDS), "f4")
        self.x[np.arange(n), kinds] = 1
        scaled = self.x * scale[:, None]
        self.q = ((scaled[edges[0]] - scaled[edges[1]]) ** 2).sum(0)


class Batch:
    def __init__(self, graphs):
        sizes = [len(g.x) for g in graphs]
        first = np.cumsum([0] + sizes)
        n = int(first[-1])
        rows = np.concatenate([g.rows + f for g, f in zip(graphs, first)])
        columns = np.concatenate([g.columns + f for g, f in zip(graphs, first)])
        values = np.concatenate([g.values for g in graphs])
        at = torch.from_numpy(np.stack([rows, columns]))
        self.matrix = torch.sparse_coo_tensor(at, torch.from_numpy(values), (n, n)).coalesce()
        self.x = torch.from_numpy(np.concatenate([g.x for g in graphs]))
        self.q = torch.from_numpy(np.stack([g.q for g in graphs]))
        self.graph = torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes))


class Rqgnn(nn.Module):
    def __init__(self, shared):
        super().__init__()
        d, h = KINDS, HIDDEN
        self.shared = shared
        self.inputs = nn.ModuleList([nn.Linear(d, d), nn.Linear(d, d)])
        bound = (6 / (2 * d)) ** 0.5
        self.theta = nn.Parameter(torch.empty(DEPTH * d, WIDTH * d).uniform_(-bound, bound))
        self.offsets = nn.Parameter(torch.zeros(WIDTH * d))
        self.hidden = nn.ModuleList([nn.Linear(WIDTH * d, h), nn.Linear(h, h)])
        self.explicit = nn.ModuleList([nn.Linear(d, h), nn.Linear(h, h)])
        self.weighting = nn.ModuleList([nn.Linear(d, h), nn.Linear(h, h)])
        self.norm = nn.BatchNorm1d(2 * h)
        self.last = nn.Linear(2 * h, 2)

    def terms(self, x, matrix):
        all = [x, torch.sparse.mm(matrix, x)]
        while len(all) < DEPTH:
            all.append(2 * torch.sparse.mm(matrix, all[-1]) - all[-2])
        return all

    def forward(self, b):
        act = F.leaky_relu
        x = act(self.inputs[1](act(self.inputs[0](b.x))))
        if self.shared:
            h = torch.cat(self.terms(x, b.matrix), 1) @ self.theta + self.offsets
        else:
            theta = self.theta.view(DEPTH, KINDS, WIDTH, KINDS)
            filters = []
            for f in range(WIDTH):
                out = self.offsets[f * KINDS : (f + 1) * KINDS]
                for k, term in enumerate(self.terms(x, b.matrix)):
                    out = out + term @ theta[k, :, f]
                filters.append(out)
            h = torch.cat(filters, 1)
        h = act(self.hidden[1](act(self.hidden[0](h))))
        a = act(self.weighting[1](act(self.weighting[0](b.q))))
        scores = (h * a[b.graph]).sum(1, keepdim=True)
        p = torch.zeros(len(b.q), HIDDEN).index_add(0, b.graph, h * scores)
        r = act(self.explicit[1](self.explicit[0](b.q)))
        z = self.norm(torch.cat([p, r], 1))
        return self.last(F.dropout(z, 0.4, self.training))


def loss_of(logits, labels, weights, gamma=1.5):
    z = torch.where(F.one_hot(labels, 2).bool(), -logits, logits)
    each = torch.exp(-gamma * F.softplus(-z)) * F.softplus(z)
    return (weights[labels] * each.sum(1)).mean()


def epochs_of(shared, graphs, labels, epochs):
    """Fastest seconds of an epoch."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Rqgnn(shared)
    adam = torch.optim.Adam(model.parameters(), 5e-3)
    counts = np.bincount(labels)
    weights = (1 - 0.999) / (1 - 0.999**counts)
    weights = torch.tensor(weights / weights.sum() * 2, dtype=torch.float32)
    fastest = np.inf
    for _ in range(epochs):
        begin = time.perf_counter()
        order = rng.permutation(len(graphs))
        for at in range(0, len(order), BATCH):
            some = order[at : at + BATCH]
            batch = Batch([graphs[g] for g in some])
            adam.zero_grad()
            loss = loss_of(model(batch), torch.from_numpy(labels[some]), weights)
            loss.backward()
            adam.step()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def tensors(path):
    """A safetensors file as arrays by name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    return {
        name: np.frombuffer(data[slice(*info["data_offsets"])], "<f4").reshape(info["shape"])
        for name, info in header.items()
        if name != "__metadata__" and info["dtype"] == "F32"
    }


def gap_of(folder, graphs):
    """Largest difference of our scores from those of the peer with our weights."""
    ours = tensors(os.path.join(folder, "out.model", "network.safetensors"))
    model = Rqgnn(True).eval()
    names = {"norm.weight": "head.norm.gamma", "norm.bias": "head.norm.beta"}
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
            continue
        ending = name.replace("norm.", "head.norm.").replace("last.", "head.last.")
        found = torch.from_numpy(ours[names.get(name, ending)].copy())
        # Linear layers hold [inputs, outputs] on our side.
        turned = name.endswith("weight") and found.ndim == 2
        state[name] = found.T if turned else found
    model.load_state_dict(state)
    with open(os.path.join(folder, "out.jsonl")) as file:
        scores = np.array([json.loads(line)["score"] for line in file])
    with torch.no_grad():
        found = F.softmax(model(Batch(graphs)), 1)[:, 1].numpy()
    return np.abs(found - scores).max()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 100 < 8).astype(int)
    rng.shuffle(labels)
    made = [molecule(rng, label) for label in labels]
    graphs = [Prepared(*m) for m in made]
    folder = tempfile.mkdtemp(prefix="papertrial-bench-")
    data = os.path.join(folder, "B")
    written(data, made, labels)
    # Kinds that no molecule has would be missing on our side.
    assert len(set(np.concatenate([m[1] for m in made]))) == KINDS
    words = [OURS, "graph", data, str(epochs), os.path.join(folder, "out.jsonl")]
    us = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    gap = gap_of(folder, graphs)
    assert gap < 1e-3, gap
    some = int(0.7 * count)
    for shared, title in ((False, "each filter its own terms"), (True, "terms computed once")):
        peer = epochs_of(shared, graphs[:some], labels[:some], epochs)
        print(
            f"RQGNN, epoch of {some} graphs; PyTorch, {title:<26} ours {us['epoch-seconds']:7.3f} s   "
            f"peer {peer:7.3f} s   ratio {peer / us['epoch-seconds']:6.2f}   scores equal to {gap:.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
