"""`tracerctl bench scale`, as people call it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from services.ctl.output import fail, print_json, print_table, progress
from services.ctl.paths import cache_folder
from services.ctl.scale import ScaleFailed, measure, write_traces
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def scale(
    rows: Annotated[
        str, typer.Option(help="Traces in the horizon, with commas between.")
    ] = "10000,100000,1000000",
    max_rows: Annotated[int, typer.Option(help="As of a task.", min=1_000)] = 100_000,
    alpha: Annotated[float, typer.Option(help="As of a task.", min=0.5, max=0.999)] = 0.9,
    encoder: Annotated[Path | None, typer.Option(help="Encoder artifact; default: MiniLM.")] = None,
    json: Json = False,
) -> None:
    """Fit on growing horizons of synthetic traces: seconds, CPU and peak memory of each."""
    try:
        sizes = [int(part) for part in rows.split(",")]
    except ValueError:
        fail(f"--rows must be whole numbers with commas between, not {rows!r}", code=2)
    if min(sizes) < 1:
        fail(f"--rows must be positive, not {rows!r}", code=2)
    try:
        found = encoder or ensure_default_encoder(cache_folder() / "encoder")
        with progress() as bar:
            shown = bar.add_task("writing and fitting", total=2 * len(sizes))
            measured = run(sizes, found, max_rows, alpha, lambda: bar.advance(shown))
    except (ScaleFailed, EncoderError, OSError) as error:
        fail(str(error))
    result = {"max_rows": max_rows, "alpha": alpha, "sizes": measured}
    if json:
        print_json(result)
    else:
        print_table(
            f"one fit, at most {max_rows} rows",
            ["traces", "rows", "read, s", "embed, s", "fit, s", "fit, CPU s", "peak, MiB",
             "certified"],
            [
                [one["stored"], one["rows"], one["read_seconds"], one["embed_seconds"],
                 one["fit_seconds"], one["fit_cpu_seconds"], one["peak_mib"],
                 one["certified_coverage"] or "refused"]
                for one in measured
            ],
        )  # fmt: skip


def run(
    sizes: list[int], encoder: Path, max_rows: int, alpha: float, done: Callable[[], None]
) -> list[dict[str, Any]]:
    """A store and a fit each, one after the other; `done` after each half. Raises ScaleFailed."""
    measured = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_traces(Path(folder), n)
            done()
            measured.append(measure(Path(folder), encoder, max_rows, alpha))
            done()
    return measured
