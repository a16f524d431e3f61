#!/usr/bin/env python3
"""Times the select family against apricot, NumPy, scikit-learn, crowd-kit and river, on the same data and threads.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/selection.py [facility k-center embeddings coreset votes stream growth]

One run each, in turn; equal results are checked as far as both do the same. Above 1, ours is faster.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import numpy as np  # noqa: E402  (the threads must be set first)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = os.path.join(ROOT, "target", "release", "papertrial-bench")
FOLDER = tempfile.mkdtemp(prefix="papertrial-bench-")


def save(name, kind, *arrays):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype=kind).tobytes())
    return path


def ours(*words):
    words = [OURS, "select", *map(str, words)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def tell(name, us, them, equal):
    print(
        f"{name:<58} ours {us:9.3f} s   peer {them:9.3f} s   ratio {them / us:6.2f}   {equal}",
        flush=True,
    )


def unit_rows(n, d, seed):
    rng = np.random.default_rng(seed)
    # Clusters of unequal size, as embeddings of real text have them.
    centres = rng.normal(size=(200, d))
    x = centres[rng.integers(200, size=n) * rng.integers(2, size=n)] + rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")


def distances(x, to):
    squares = 2 - 2 * (x @ to.T)
    return np.sqrt(np.maximum(squares, 0))


def facility():
    from apricot import FacilityLocationSelection

    n, d, k = 20_000, 384, 1_000
    x = unit_rows(n, d, 0)
    us = ours("facility", save("x", "<f4", x), n, d, k)

    def peer():
        pairs = distances(x, x)
        similarity = pairs.max() - pairs
        chooser = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy")
        return chooser.fit(similarity.astype("f8")).ranking

    seconds, theirs = timed(peer)
    # The objective: the distance of all rows to their nearest chosen one.
    far = [distances(x, x[rows]).min(axis=1).sum() for rows in (us["rows"], theirs)]
    assert abs(far[0] / far[1] - 1) < 1e-3, far
    tell(f"facility location, lazy, {k} of {n:,} x {d} (apricot)", us["seconds"][0], seconds,
         f"objective equal to {abs(far[0] / far[1] - 1):.0e}")


def k_center():
    n, d, k = 20_000, 384, 1_000
    x = unit_rows(n, d, 0)
    us = ours("k-center", save("x", "<f4", x), n, d, k)

    def peer():
        # Greedy from our first row: each next one is the farthest from those chosen.
        rows = [us["rows"][0]]
        nearest = np.full(n, np.inf, dtype="f4")
        while len(rows) < k:
            nearest = np.minimum(nearest, 2 - 2 * (x @ x[rows[-1]]))
            rows.append(int(nearest.argmax()))
        return rows

    seconds, theirs = timed(peer)
    radius = [distances(x, x[rows]).min(axis=1).max() for rows in (us["rows"], theirs)]
    assert abs(radius[0] / radius[1] - 1) < 1e-3, radius
    tell(f"k-center, {k} of {n:,} x {d} (NumPy products)", us["seconds"][0], seconds,
         f"radius equal to {abs(radius[0] / radius[1] - 1):.0e}")


def embeddings(n=1_000_000):
    import pyarrow as pa
    import pyarrow.parquet as pq

    d, q, k = 384, 100, 10_000
    path = os.path.join(FOLDER, "pool.parquet")
    kind = pa.list_(pa.float16(), d)
    with pq.ParquetWriter(path, pa.schema([("vector", kind)]), compression="zstd") as writer:
        for block in range(0, n, 50_000):
            part = unit_rows(min(50_000, n - block), d, 7 + block).astype("f2")
            flat = pa.array(part.reshape(-1), type=pa.float16())
            writer.write_table(pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, d)}))
    queries = unit_rows(q, d, 3)
    us = ours("embeddings", path, save("q", "<f4", queries), n, d, q, k)

    def peer():
        # All scores in memory, one sort a query, turns in Python.
        columns = []
        for batch in pq.ParquetFile(path).iter_batches(65_536):
            part = np.asarray(batch.column(0).flatten()).reshape(-1, d).astype("f4")
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            columns.append((part @ queries.T).astype("f4"))
        scores = np.concatenate(columns)
        most = 4 * k // q + 100
        lists = []
        for i in range(q):
            best = np.argpartition(-scores[:, i], most)[:most]
            lists.append(best[np.lexsort((best, -scores[best, i]))])
        taken, rows, place = set(), [], [0] * q
        while len(rows) < k:
            for i in range(q):
                row = int(lists[i][place[i]])
                place[i] += 1
                if row not in taken:
                    taken.add(row)
                    rows.append(row)
        return rows[:k]

    seconds, theirs = timed(peer)
    same = len(set(us["rows"]) & set(theirs)) / k
    # Half precision rounds near ties, and each swap moves the turns after it.
    assert same > 0.99, same
    tell(f"{k:,} of {n:,} x {d} f16, {q} queries (NumPy, pyarrow)", us["seconds"][0], seconds,
         f"{same:.2%} of rows the same, peak {us['peak_bytes'] / 2**20:.0f} MiB")


def labels_of(x, seed):
    rng = np.random.default_rng(seed)
    signal = x @ (1 / (1 + np.arange(x.shape[1])))
    return (signal + rng.uniform(-0.5, 0.5, len(x)) > 0.4).astype("f8")


def coreset(n=1_000_000):
    from sklearn.linear_model import LogisticRegression

    d, k = 30, 500
    x = np.random.default_rng(0).uniform(-1, 1, (n, d))
    y = labels_of(x, 1)
    us = ours("coreset", save("c", "<f8", x, y), n, d, k)
    # No package builds it: the peer is the fit on all rows, which the coreset stands for.
    seconds, _ = timed(lambda: LogisticRegression(C=1.0, max_iter=200).fit(x, y))
    tell(f"coreset of {k} from {n:,} x {d}, {us['fits']} fits (scikit-learn, all rows)", us["seconds"][0], seconds,
         f"loss {us['loss'] / us['full'] - 1:.1%} above that of all rows")


def votes():
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    rng = np.random.default_rng(0)
    n, annotators, classes, each = 200_000, 500, 5, 5
    truth = rng.integers(classes, size=n)
    right = rng.uniform(0.4, 0.95, annotators)
    rows = np.repeat(np.arange(n), each)
    who = rng.integers(annotators, size=n * each)
    other = (truth[rows] + rng.integers(1, classes, n * each)) % classes
    said = np.where(rng.uniform(size=n * each) < right[who], truth[rows], other)
    path = save("v", "<u4", np.stack([rows, who, said], axis=1))
    us = ours("votes", path, n * each, n, annotators, classes)
    frame = pd.DataFrame({"task": rows, "worker": who, "label": said})
    seconds, theirs = timed(lambda: DawidSkene(n_iter=100).fit_predict(frame))
    same = (np.array(us["labels"]) == theirs.sort_index().to_numpy()).mean()
    assert same > 0.99, same
    tell(f"Dawid-Skene, {n * each:,} answers (crowd-kit)", us["seconds"][0], seconds,
         f"{same:.2%} of labels the same, {(np.array(us['labels']) == truth).mean():.2%} right")


def stream(n=100_000):
    from river import active, linear_model, preprocessing

    d, budget = 20, 0.1
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    y = labels_of(x / 2, 1)
    us = ours("stream", save("s", "<f8", x, y), n, d, budget)
    rows = [dict(enumerate(row)) for row in x.tolist()]

    def peer():
        model = active.EntropySampler(
            preprocessing.StandardScaler() | linear_model.LogisticRegression(), discount_factor=1, seed=0
        )
        right = labels = 0
        for row, label in zip(rows, y.astype(bool).tolist()):
            said, ask = model.predict_one(row)
            right += said == label
            if ask:
                labels += 1
                model.learn_one(row, label)
        return right / n, labels / n

    seconds, (accuracy, share) = timed(peer)
    tell(f"stream of {n:,} x {d} (river, entropy)", us["seconds"][0], seconds,
         f"accuracy {us['accuracy']:.3f} with {us['labels']:.1%} labels, peer {accuracy:.3f} with {share:.1%}")


def growth():
    """How time grows with the pool."""
    for n in (10_000, 100_000, 1_000_000):
        x = unit_rows(n, 64, 0)
        centre = ours("k-center", save("x", "<f4", x), n, 64, 1_000)
        y = labels_of(x.astype("f8"), 1)
        core = ours("coreset", save("c", "<f8", x, y), n, 64, 500)
        print(f"{n:>9,} x 64: k-center of 1,000 {centre['seconds'][0]:7.2f} s, "
              f"coreset of 500 {core['seconds'][0]:7.2f} s", flush=True)


PARTS = {
    "facility": facility,
    "k-center": k_center,
    "embeddings": embeddings,
    "coreset": coreset,
    "votes": votes,
    "stream": stream,
    "growth": growth,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
