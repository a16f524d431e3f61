#!/usr/bin/env python3
"""Times papertrial's kernels and clustering methods against scikit-learn and cvxpy+SCS, on the same data and threads.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/cluster.py [kmeans knn gmm sdp]

Each pair is run in turn, several times; the ratio is that of the fastest runs. Equal results are checked: the same
centres to start from give the same inertia, neighbours the same distances, mixtures the same likelihood, programs the
same objective. Above 1, ours is faster.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = str(THREADS)
# The peer's own choice of kernels for this processor.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402  (the threads must be set first)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = os.path.join(ROOT, "target", "release", "papertrial-bench")
FOLDER = tempfile.mkdtemp(prefix="papertrial-bench-")


def save(name, array):
    path = os.path.join(FOLDER, name)
    np.ascontiguousarray(array, dtype="<f8").tofile(path)
    return path


def ours(what, data, k, start=None):
    n, d = data.shape
    words = [OURS, what, save("data", data), str(n), str(d), str(k), "1"]
    if start is not None:
        words.append(save("start", start))
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def in_turn(repeats, us, peer):
    """Fastest seconds and last results of both, run in turn."""
    fastest = [np.inf, np.inf]
    results = [None, None]
    for _ in range(repeats):
        results[0] = us()
        fastest[0] = min(fastest[0], results[0]["seconds"][0])
        start = time.perf_counter()
        results[1] = peer()
        fastest[1] = min(fastest[1], time.perf_counter() - start)
    return fastest, results


def tell(name, fastest, equal):
    print(
        f"{name:<58} ours {fastest[0]:9.3f} s   peer {fastest[1]:9.3f} s   "
        f"ratio {fastest[1] / fastest[0]:6.2f}   {equal}",
        flush=True,
    )


def blobs(n, d, k, spread, seed):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-10, 10, (k, d))
    return centres[rng.integers(k, size=n)] + rng.normal(0, spread, (n, d))


def kmeans():
    from sklearn.cluster import KMeans, kmeans_plusplus

    for kind, x in (
        ("blobs", blobs(200_000, 32, 50, 4.0, 0)),
        ("noise", np.random.default_rng(1).normal(size=(200_000, 32))),
    ):
        start, _ = kmeans_plusplus(x, 50, random_state=0)

        def peer():
            return KMeans(50, init=start, n_init=1, tol=1e-4, algorithm="lloyd").fit(x)

        fastest, (us, them) = in_turn(5, lambda: ours("kmeans", x, 50, start), peer)
        gap = abs(us["inertia"] / them.inertia_ - 1)
        assert gap < 1e-6, (us["inertia"], them.inertia_)
        tell(
            f"k-means 200,000 x 32, k = 50 ({kind}; scikit-learn Lloyd)",
            fastest,
            f"inertia equal to {gap:.0e}, rounds {us['rounds']} and {them.n_iter_}",
        )


def knn():
    from sklearn.neighbors import NearestNeighbors

    x = np.random.default_rng(0).normal(size=(20_000, 128))

    def peer():
        return NearestNeighbors(n_neighbors=10, algorithm="brute").fit(x).kneighbors(x)

    fastest, (us, (distances, _)) = in_turn(5, lambda: ours("knn", x, 10), peer)
    # Of a row to itself the peer's product form gives about 1e-6, not 0.
    gap = abs(us["distances"] / distances.sum() - 1)
    assert gap < 1e-6, gap
    tell("exact 10-NN 20,000 x 128 (scikit-learn brute)", fastest, f"distances equal to {gap:.0e}")


def gmm():
    from sklearn.mixture import GaussianMixture

    x = blobs(50_000, 16, 10, 2.0, 0)
    ridge = 1e-6 * x.var(axis=0).mean()

    def peer():
        return GaussianMixture(10, covariance_type="full", reg_covar=ridge, n_init=1, random_state=0).fit(x)

    fastest, (us, them) = in_turn(5, lambda: ours("gmm", x, 10), peer)
    # Ours is of all rows, the peer's of one. Each starts from its own k-means; both find the same groups.
    gap = abs(us["likelihood"] / len(x) / them.score(x) - 1)
    assert gap < 1e-3, (us["likelihood"], them.score(x))
    tell(
        "Gaussian mixture, full, 50,000 x 16, k = 10 (scikit-learn)",
        fastest,
        f"likelihood equal to {gap:.0e}, rounds {us['rounds']} and {them.n_iter_}",
    )


def sdp():
    import cvxpy as cp

    # 1,000 rows take SCS hours and much memory; the ratio is measured at sizes where it ends, and grows.
    sizes = [int(s) for s in os.environ.get("BENCH_SDP_ROWS", "60,120").split(",")]
    for n in sizes:
        x = blobs(n, 4, 3, 3.0, 0)
        x = x - x.mean(axis=0)
        gram = x @ x.T

        def peer():
            z = cp.Variable((n, n), PSD=True)
            rules = [cp.trace(z) == 3, cp.sum(z, axis=1) == 1, z >= 0]
            problem = cp.Problem(cp.Maximize(cp.trace(gram / np.abs(gram).max() @ z)), rules)
            problem.solve(solver=cp.SCS, eps=1e-4, max_iters=20_000)
            return problem.value * np.abs(gram).max()

        fastest, (us, them) = in_turn(2, lambda: ours("sdp", x, 3), peer)
        gap = abs(us["objective"] / them - 1)
        assert gap < 1e-2, (us["objective"], them)
        tell(f"k-means SDP, n = {n} (cvxpy + SCS)", fastest, f"objective equal to {gap:.0e}")
    n = 1_000
    print(f"k-means SDP, n = {n}: ours {ours('sdp', blobs(n, 4, 3, 3.0, 0), 3)['seconds'][0]:.2f} s", flush=True)


if __name__ == "__main__":
    every = {"kmeans": kmeans, "knn": knn, "gmm": gmm, "sdp": sdp}
    for name in sys.argv[1:] or every:
        every[name]()
