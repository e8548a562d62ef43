"""ONNX Runtime's options on this CPU: `make bench-options` writes the table in docs/router.md.

The encoder in float32 and int8, in length-sorted batches of 1,024 word pieces and one text at a
time. "Side by side": our way, one thread a batch and several batches at once. "Inside": the
threads share each product, which is ONNX Runtime's own way. One text at a time is one thread's
work unless the threads are inside; told is their mean.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.routing.rounds import Run, in_rounds
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
    """In rounds, each variant once in each."""
    files = read_encoder(folder)
    tokens = OnnxEncoder(folder, threads=1).tokenize(texts)
    plan = batches([len(row) for row in tokens], MAX_BATCH_TOKENS)
    # The longest first, so that all threads end together.
    inputs = [_inputs([tokens[i] for i in batch], files.info.pad_id) for batch in plan][::-1]
    singles = [_inputs([row], files.info.pad_id) for row in tokens[:SINGLES]]
    tried = variants(usable_threads())
    runs: dict[str, Run] = {}
    with ExitStack() as pools:
        for options in tried:
            run = partial(options.session(files.model).run, ["embedding"])
            pool = pools.enter_context(ThreadPoolExecutor(options.beside))
            runs[options.name] = Run(partial(_all, pool.map, run, inputs), len(texts))
            runs[f"{options.name}, one"] = Run(partial(_all, map, run, singles), len(singles))
        passes = in_rounds(runs, ROUNDS)
    default = [one.per_s for one in passes[tried[0].name]]
    found = {}
    for options in tried:
        own = passes[options.name]
        found[options] = Found(
            per_s=statistics.median(one.per_s for one in own),
            times=statistics.median(one.per_s / d for one, d in zip(own, default, strict=True)),
            cpu_s_per_1000=statistics.median(one.cpu_s_per_1000 for one in own),
            one_ms=1000 / statistics.median(one.per_s for one in passes[f"{options.name}, one"]),
        )
    return found


def _all(
    mapping: Callable[..., Iterable[object]], run: Callable[[Inputs], object], inputs: list[Inputs]
) -> None:
    deque(mapping(run, inputs), maxlen=0)


def _inputs(rows: Sequence[Sequence[int]], pad_id: int) -> Inputs:
    ids, mask = padded(rows, pad_id)
    return {"input_ids": ids, "attention_mask": mask}


if __name__ == "__main__":
    main()
