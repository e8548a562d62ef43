"""`make bench-scale`: `tracerctl bench scale`, written to benchmarks/results/scale.json and the
table in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import sizing
from benchmarks.tables import replace_section
from services.ctl.bench_scale_command import run
from services.ctl.paths import cache_folder
from shared.encoder.default import ensure_default_encoder

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--max-rows", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.9)
    arguments = parser.parse_args()
    encoder = ensure_default_encoder(cache_folder() / "encoder")
    found: list[dict[str, Any]] = []
    for n in arguments.rows:
        found += run([n], encoder, arguments.max_rows, arguments.alpha, lambda: None)
        print(found[-1], flush=True)
    result = {"max_rows": arguments.max_rows, "alpha": arguments.alpha, "sizes": found}
    (HERE / "results" / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    replace_section(Path("docs/benchmarks.md"), "scale", table(found))
    sizing.write()


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| traces in the horizon | rows used | read, s | embed, s | fit, s | fit, CPU s |"
        " peak memory, MiB | certified coverage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['stored']:,} | {one['rows']:,} | {one['read_seconds']} | {one['embed_seconds']} "
        f"| {one['fit_seconds']} | {one['fit_cpu_seconds']} | {one['peak_mib']:,} | "
        + (f"{one['certified_coverage']:.3f} |" if one["certified_coverage"] else "refused |")
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
