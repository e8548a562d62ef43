"""ONNX Runtime's options on this CPU: `make bench-options` writes the table in docs/router.md.

The encoder in float32 and int8, in length-sorted batches of 1,024 word pieces and one text at a
time. "Side by side": our way, one thread a batch and several batches at once. "Inside": the
threads share each product, which is ONNX Runtime's own way. One text at a time is one thread's
work unless the threads are inside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.tables import replace_section
from services.ctl.files import read_rows
from services.ctl.paths import cache_folder
from shared.batching import batches
from shared.encoder.artifact import read_encoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import MAX_BATCH_TOKENS, OnnxEncoder, padded
from shared.encoder.quantise import quantise
from shared.encoder.threads import usable_threads

ROUNDS = 9
SINGLES = 60
Inputs = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Options:
    """`threads` inside each product, `beside`: batches at a time."""

    name: str
    threads: int = 1
    beside: int = 1
    spinning: bool = True
    arena: bool = True
    parallel: bool = False

    def session(self, model: bytes) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = self.threads if self.parallel else 1
        options.enable_cpu_mem_arena = self.arena
        options.log_severity_level = 3
        if self.parallel:
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        spin = "1" if self.spinning else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        options.add_session_config_entry("session.inter_op.allow_spinning", spin)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def variants(n: int) -> list[Options]:
    """One by one against the default, which is the first."""
    return [
        Options(f"default: {n} side by side", beside=n),
        Options("1 thread"),
        Options(f"{n} inside", threads=n),
        Options(f"{n} inside, no spinning", threads=n, spinning=False),
        Options(f"{n} inside, parallel execution", threads=n, parallel=True),
        Options(f"{n} side by side, no arena", beside=n, arena=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    chosen = parser.parse_args()
    rows = [r for r in read_rows(chosen.data_dir / "banking77.jsonl") if r.split == "test"]
    texts = [row.texts[0] for row in rows][: chosen.texts]
    lines = [
        "| encoder | options | texts/s | × the default | CPU s per 1,000 texts | one text, ms |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as made:
        float32 = ensure_default_encoder(cache_folder() / "encoder")
        int8 = Path(made) / "int8"
        quantise(float32, int8)
        for name, folder in (("float32", float32), ("int8", int8)):
            for options, found in measure(folder, texts).items():
                lines.append(
                    f"| {name} | {options.name} | {found.per_s:,.0f} | {found.times:.2f} | "
                    f"{found.cpu_s_per_1000:.2f} | {found.one_ms:.2f} |"
                )
                print(lines[-1], flush=True)
    if not chosen.dry:
        replace_section(Path("docs/router.md"), "options", "\n".join(lines))


@dataclass(frozen=True)
class Found:
    """Medians of the rounds. `times`: as fast as the default was in the same round."""

    per_s: float
    times: float
    cpu_s_per_1000: float
    one_ms: float


def measure(folder: Path, texts: Sequence[str]) -> dict[Options, Found]:
    """In rounds, each variant once in each: the machine's fast and slow phases meet all alike."""
    files = read_encoder(folder)
    tokens = OnnxEncoder(folder, threads=1).tokenize(texts)
    plan = batches([len(row) for row in tokens], MAX_BATCH_TOKENS)
    # The longest first, so that all threads end together.
    inputs = [_inputs([tokens[i] for i in batch], files.info.pad_id) for batch in plan][::-1]
    singles = [_inputs([row], files.info.pad_id) for row in tokens[:SINGLES]]
    tried = variants(usable_threads())
    sessions = [options.session(files.model) for options in tried]
    seconds, cpu, one = (np.empty((ROUNDS, len(tried))) for _ in range(3))
    for number in range(-1, ROUNDS):  # the first warms up, and is overwritten by the last
        for i, (options, session) in enumerate(zip(tried, sessions, strict=True)):
            run = partial(session.run, ["embedding"])
            with ThreadPoolExecutor(options.beside) as pool:
                started, used = time.perf_counter(), time.process_time()
                list(pool.map(run, inputs))
                seconds[number, i] = time.perf_counter() - started
                cpu[number, i] = time.process_time() - used
            one[number, i] = statistics.median(_seconds(partial(run, s)) for s in singles)
    return {
        options: Found(
            per_s=len(texts) / float(np.median(seconds[:, i])),
            times=float(np.median(seconds[:, 0] / seconds[:, i])),
            cpu_s_per_1000=1000 * float(np.median(cpu[:, i])) / len(texts),
            one_ms=1000 * float(np.median(one[:, i])),
        )
        for i, options in enumerate(tried)
    }


def _inputs(rows: Sequence[Sequence[int]], pad_id: int) -> Inputs:
    ids, mask = padded(rows, pad_id)
    return {"input_ids": ids, "attention_mask": mask}


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
