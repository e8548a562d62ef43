"""python -m services.ctl.scale_child STORE ENCODER MAX_ROWS ALPHA: one fit, and what it cost."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from services.ctl.scale import DAYS, FIRST, TASK, task_of
from shared.encoder.cache import CachedEncoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.challenger import fit_challenger
from shared.fitting.reading import read_horizon
from shared.store.parquet import WindowStore

T = TypeVar("T")


def main(store: str, encoder: str, max_rows: str, alpha: str) -> dict[str, Any]:
    """Seconds and CPU seconds of reading, of embedding what is new, and of the fit after that."""
    task = task_of(int(max_rows), float(alpha))
    last = max(WindowStore(store).days(TASK), default=FIRST)
    costs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        encoding = CachedEncoder(
            OnnxEncoder(Path(encoder), threads=None), Path(cache) / "embeddings.sqlite"
        )
        with encoding:
            horizon = _timed(costs, "read", lambda: read_horizon(WindowStore(store), task, last))
            texts = [text for texts in horizon.inputs for text in texts]
            # In parts: the cache keeps what they give, and the fit then asks for them again.
            _timed(costs, "embed", lambda: [
                encoding.encode(texts[i : i + 2_048]).shape for i in range(0, len(texts), 2_048)
            ])  # fmt: skip
            challenger = _timed(
                costs, "fit", lambda: fit_challenger(task, last, horizon, encoding, jobs=1)
            )
    return {
        "stored": horizon.stored or len(horizon),
        "rows": len(horizon),
        "days": DAYS,
        **costs,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "certified_coverage": challenger.coverage,
        "reason": challenger.reason,
    }


def _timed(costs: dict[str, Any], name: str, work: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    costs[f"{name}_seconds"] = round(time.perf_counter() - wall, 1)
    costs[f"{name}_cpu_seconds"] = round(time.process_time() - cpu, 1)
    return result


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
