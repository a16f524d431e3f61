#!/usr/bin/env python3
"""Times the tests of Decamouflage on one picture against OpenCV, NumPy and scikit-image, on one thread.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r bench/requirements.txt
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/decamouflage.py [PICTURE]

Without a picture, one of 768 x 512 pixels is made: smooth, with edges and noise. The model takes 224 x 224 pixels, scaled
bilinearly. Each pair is run in turn, several rounds of many repeats; the ratio is that of the medians of the better round.
Equal scores are checked. Above 1, ours is faster. BENCH_OURS names another program for our side.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = "1"

import cv2  # noqa: E402  (the threads must be set first)
import numpy as np  # noqa: E402
from skimage.metrics import structural_similarity  # noqa: E402

cv2.setNumThreads(1)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = shlex.split(
    os.environ.get("BENCH_OURS", os.path.join(ROOT, "target", "release", "papertrial-bench") + " decamouflage")
)
TARGET = (224, 224)
ROUNDS, REPEATS = 3, 15


def made_picture():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:512, 0:768]
    picture = np.stack([128 + 60 * np.sin(x / (40 + 9 * c)) * np.cos(y / 55) for c in range(3)], axis=2)
    for _ in range(200):
        cy, cx, r = rng.integers(512), rng.integers(768), 6 + 60 * rng.random() ** 3
        picture[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.integers(20, 236, size=3)
    picture = cv2.GaussianBlur(picture, (3, 3), 0) + rng.normal(0, 2, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype("u1")


def mse(a, b):
    return cv2.norm(a, b, cv2.NORM_L2SQR) / (a.shape[0] * a.shape[1])


def ssim(a, b):
    return structural_similarity(a, b, gaussian_weights=True, sigma=1.5, channel_axis=2, data_range=255)


def rescaled(image):
    small = cv2.resize(image, TARGET[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def eroded(image):
    return cv2.erode(image, np.ones((2, 2), "u1"), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)


def spectrum(image, transform):
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    magnitude = 20 * np.log(np.maximum(transform(grey), 1))
    magnitude = np.clip(np.rint(np.fft.fftshift(magnitude)), 0, 255).astype("u1")
    white = cv2.threshold(magnitude, 240, 255, cv2.THRESH_BINARY)[1]
    blurred = cv2.GaussianBlur(cv2.medianBlur(white, 3), (21, 21), 0)
    return cv2.connectedComponents((blurred > 0).astype("u1"), connectivity=8)[0] - 1


def opencv_transform(grey):
    planes = cv2.split(cv2.dft(grey.astype("f4"), flags=cv2.DFT_COMPLEX_OUTPUT))
    return cv2.magnitude(*planes)


def numpy_transform(grey):
    return np.abs(np.fft.fft2(grey))


def main():
    path = os.path.join(tempfile.mkdtemp(prefix="papertrial-bench-"), "picture.png")
    # As PNG, so that both sides see the same pixels: decoders of JPEG differ in the last bit.
    cv2.imwrite(path, cv2.imread(sys.argv[1], cv2.IMREAD_COLOR) if len(sys.argv) > 1 else made_picture())
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    peers = [
        ("rescaling", "rescaling, squared error (OpenCV)", lambda: mse(image, rescaled(image)), 2e-2),
        ("rescaling-ssim", "rescaling, SSIM (OpenCV, scikit-image)", lambda: ssim(image, rescaled(image)), 2e-3),
        ("filtering", "filtering, squared error (OpenCV)", lambda: mse(image, eroded(image)), 1e-9),
        ("filtering-ssim", "filtering, SSIM (OpenCV, scikit-image)", lambda: ssim(image, eroded(image)), 1e-5),
        ("spectrum", "steganalysis (OpenCV's transform)", lambda: spectrum(image, opencv_transform), 0),
        ("spectrum", "steganalysis (NumPy's transform)", lambda: spectrum(image, numpy_transform), 0),
    ]
    fastest = {}
    for _ in range(ROUNDS):
        words = [*OURS, path, *map(str, TARGET), str(REPEATS)]
        found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        for name, title, peer, allowed in peers:
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                score = peer()
                seconds.append(time.perf_counter() - start)
            gap = abs(found[name]["score"] - score) / max(1e-12, abs(score))
            assert gap <= allowed, (name, found[name]["score"], score)
            pair = [float(np.median(found[name]["seconds"])), float(np.median(seconds))]
            known = fastest.get(title, [np.inf, np.inf, gap])
            fastest[title] = [min(known[0], pair[0]), min(known[1], pair[1]), gap]
    print(f"{image.shape[1]} x {image.shape[0]} pixels, one thread")
    for title, (us, them, gap) in fastest.items():
        print(
            f"{title:<42} ours {us * 1e3:7.2f} ms   peer {them * 1e3:7.2f} ms   ratio {them / us:5.2f}   "
            f"score equal to {gap:.0e}"
        )
    attack = found["forge"]
    print(f"one attack made: ours {attack['seconds'][0] * 1e3:.0f} ms, mean error {attack['score']:.2f} grey levels")


if __name__ == "__main__":
    main()
