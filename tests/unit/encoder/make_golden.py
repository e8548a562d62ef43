"""Makes golden.npz: what sentence-transformers itself says about golden.json.

Run by hand, in an environment with sentence-transformers and torch (see `made_by` in the file):
    python tests/unit/encoder/make_golden.py <folder of all-MiniLM-L6-v2>
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def main(model_folder: str) -> None:
    from sentence_transformers import SentenceTransformer

    sentences = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
    model = SentenceTransformer(model_folder, device="cpu")
    # One at a time, so that no padding takes part.
    rows = [model.encode([sentence], normalize_embeddings=True)[0] for sentence in sentences]
    packages = ("sentence-transformers", "torch", "transformers", "tokenizers")
    made_by = " ".join(f"{package}={version(package)}" for package in packages)
    np.savez_compressed(
        HERE / "golden.npz", embeddings=np.asarray(rows, np.float32), made_by=np.array(made_by)
    )


if __name__ == "__main__":
    main(sys.argv[1])
