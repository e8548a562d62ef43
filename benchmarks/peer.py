"""`make bench-peer`: the reference implementation and this one, side by side in one run.

The peer (PyPI `tracer-llm`, pinned) runs in an environment of its own. Both get the same
embeddings and the same splits; every fit and measurement is a process of its own, one at a time,
with one thread. Writes benchmarks/results/peer.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_env import peer_python
from benchmarks.tables import replace_section
from services.ctl.files import read_rows
from services.ctl.paths import cache_folder
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
COSTS = (
    ("fit, CPU seconds", "fit_cpu_seconds", "{:.1f}"),
    ("fit, peak memory, MB", "peak_rss_mb", "{:.0f}"),
    ("artifact, MB", "artifact_mb", "{:.1f}"),
    ("route one embedding, ms, median", "route_one_ms_p50", "{:.3f}"),
    ("route one embedding, ms, p99", "route_one_ms_p99", "{:.3f}"),
    ("route a batch of 1,024, rows/s", "route_batch_rows_per_s", "{:,.0f}"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77.jsonl"))
    parser.add_argument("--alphas", default="0.90,0.95,0.97,0.98,0.99")
    parser.add_argument("--seeds", type=int, default=10, help="random 80/20 splits")
    parser.add_argument("--seed-alphas", default="0.90,0.95", help="α on the random splits")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "peer.json")
    arguments = parser.parse_args()
    data = Data(arguments.data)
    python = peer_python(cache_folder())
    alphas, seed_alphas = ([float(a) for a in text.split(",")]
                           for text in (arguments.alphas, arguments.seed_alphas))  # fmt: skip
    result: dict[str, Any] = {
        "data": arguments.data.name,
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
        "official": compare(data, data.official(), alphas, python, seed=0, speed=True),
        "splits": [],
    }
    for seed in range(arguments.seeds):
        split = data.random(seed)
        found = compare(data, split, seed_alphas, python, seed=seed, speed=False)
        result["splits"].append(found)
        print(f"split {seed + 1} of {arguments.seeds} done", file=sys.stderr)
        arguments.out.write_text(json.dumps(result, indent=1))
    arguments.out.write_text(json.dumps(result, indent=1))
    replace_section(Path("docs/benchmarks.md"), "peer", table(result))


class Data:
    """Texts, labels and embeddings of a file."""

    def __init__(self, file: Path) -> None:
        rows = [row for row in read_rows(file) if not (row.split or "").startswith("oos")]
        self.texts = np.asarray([row.texts[0] for row in rows])
        self.labels = np.asarray([row.teacher for row in rows])
        self.splits = np.asarray([row.split or "" for row in rows])
        cache = cache_folder()
        folder = ensure_default_encoder(cache / "encoder")
        with CachedEncoder(OnnxEncoder(folder), cache / "embeddings.sqlite") as encoder:
            self.embeddings = encoder.encode(self.texts.tolist())

    def official(self) -> tuple[np.ndarray, np.ndarray]:
        test = self.splits == "test"
        return np.flatnonzero(~test), np.flatnonzero(test)

    def random(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The splits of `tracerctl bench gate`."""
        order = np.random.default_rng(seed).permutation(len(self.texts))
        n_test = round(0.2 * len(order))
        return np.sort(order[n_test:]), np.sort(order[:n_test])


def compare(
    data: Data,
    split: tuple[np.ndarray, np.ndarray],
    alphas: list[float],
    python: Path,
    *,
    seed: int,
    speed: bool,
) -> dict[str, Any]:
    """One job for each of: the peer, this project, and this project on embeddings alone."""
    with tempfile.TemporaryDirectory() as made:
        job = Path(made)
        (job / "job.json").write_text(json.dumps({"alphas": alphas, "seed": seed, "speed": speed}))
        arrays = {}
        for part, rows in zip(("train", "test"), split, strict=True):
            arrays[f"{part}_embeddings"] = data.embeddings[rows]
            arrays[f"{part}_labels"] = data.labels[rows]
            arrays[f"{part}_texts"] = data.texts[rows]
        np.savez(job / "data.npz", **arrays)  # type: ignore[arg-type]
        ours = [sys.executable, "-m", "benchmarks.our_worker", str(job)]
        found = {
            "ours": run(ours),
            "peer": run([str(python), "-I", str(HERE / "peer_worker.py"), str(job)]),
        }
        if speed:
            found["ours, embeddings alone"] = run([*ours, "--without-tokens"])
        return found


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    figures["artifact_mb"] = figures["artifact_bytes"] / 1e6
    return figures


def table(result: dict[str, Any]) -> str:
    official = result["official"]
    who = list(official)
    lines = [
        f"{result['data']}, official split, one thread, {result['machine']['cores']} cores, "
        f"Python {result['machine']['python']}; peer: {official['peer']['peer']}. "
        "Coverage / agreement on the test rows:",
        "",
        "| α | " + " | ".join(who) + " |",
        "|---" * (len(who) + 1) + "|",
    ]
    for i, point in enumerate(official["ours"]["alphas"]):
        cells = [_cell(official[name]["alphas"][i]) for name in who]
        lines.append(f"| {point['alpha']} | " + " | ".join(cells) + " |")
    lines += ["", "| cost | " + " | ".join(who) + " | peer / ours |",
              "|---" * (len(who) + 2) + "|"]  # fmt: skip
    for name, key, style in COSTS:
        cells = [style.format(official[w][key]) for w in who]
        ratio = official["peer"][key] / official["ours"][key]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio:.2g} |")
    return "\n".join([*lines, "", *_splits(result["splits"])])


def _splits(splits: list[dict[str, Any]]) -> list[str]:
    if not splits:
        return []
    lines = [f"{len(splits)} random 80/20 splits of all rows; below: splits whose test agreement "
             "is below α:", "", "| α | | coverage | agreement | lowest | below |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for i, point in enumerate(splits[0]["ours"]["alphas"]):
        for who in ("ours", "peer"):
            found = [split[who]["alphas"][i] for split in splits]
            agreements = [f["agreement"] for f in found if f["agreement"] is not None]
            below = sum(a < point["alpha"] for a in agreements)
            coverage = np.mean([f["coverage"] for f in found])
            lines.append(
                f"| {point['alpha']} | {who} | {coverage:.3f} | {np.mean(agreements):.4f} | "
                f"{min(agreements):.4f} | {below} |"
            )
    return lines


def _cell(point: dict[str, Any]) -> str:
    if point["agreement"] is None:
        return "none"
    agreement = f"{point['agreement']:.3f}"
    if point["agreement"] < point["alpha"]:
        agreement = f"**{point['agreement']:.4f}**"
    return f"{point['coverage']:.3f} / {agreement}"


if __name__ == "__main__":
    main()
