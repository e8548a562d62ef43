"""`tracerctl bench`: measure the claims on one's own data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from services.ctl.bench_gate import bench_gate
from services.ctl.bench_loop_commands import drift, flywheel
from services.ctl.bench_scale_command import scale
from services.ctl.files import InvalidFile, read_rows
from services.ctl.output import console, fail, print_json, print_table, progress
from services.ctl.paths import cache_folder
from services.ctl.scan import ProgressEncoder
from shared.core.fit import Settings
from shared.core.gate import NEXT_SAMPLE
from shared.core.training import TrainingSet
from shared.core.types import Ints, InvalidData, Kind
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.horizon import FeatureKind, Horizon, feature_kind, training_set

app = typer.Typer(help="Measure the claims on your own data.", no_args_is_help=True)
app.command()(flywheel)
app.command()(drift)
app.command()(scale)


@app.command()
def gate(
    data: Annotated[Path, typer.Option(help="Traces, one JSON object a line.")],
    splits: Annotated[int, typer.Option(help="Random 80/20 splits.", min=1)] = 20,
    alpha: Annotated[str, typer.Option(help="Agreements to certify.")] = "0.90,0.95,0.97,0.98",
    delta: Annotated[
        float, typer.Option(help="Risk of a wrong certificate.", min=0.001, max=0.5)
    ] = 0.1,
    evidence: Annotated[str, typer.Option(help="crossfit or holdout.")] = "crossfit",
    next_sample: Annotated[
        float, typer.Option(help="New samples, times the evidence, that must agree too.", min=0)
    ] = NEXT_SAMPLE,
    copies: Annotated[
        int, typer.Option(help="Every fitted trace that many times.", min=1, max=10)
    ] = 1,
    noise: Annotated[
        float,
        typer.Option(help="Share of labels flipped to the nearest class.", min=0, max=1),
    ] = 0.0,
    sample: Annotated[int, typer.Option(help="Use that many rows only; 0 for all.", min=0)] = 0,
    encoder: Annotated[Path | None, typer.Option(help="Encoder artifact; default: MiniLM.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first split.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Certify on random splits of a file and check the rest: does the certificate hold?"""
    alphas = _alphas(alpha)
    if evidence not in ("crossfit", "holdout"):
        fail(f"--evidence must be crossfit or holdout, not {evidence!r}", code=2)
    settings = Settings(delta=delta, kind=cast(Kind, evidence), next_sample=next_sample, seed=seed)
    try:
        rows, kind = read_training_set(data, encoder, sample=sample, noise=noise, seed=seed)
        with progress() as bar:
            task = bar.add_task("splits", total=splits)
            result = bench_gate(
                rows, kind, alphas, replace(settings, alpha=alphas[0]),
                splits=splits, copies=copies, done=lambda: bar.advance(task),
            )  # fmt: skip
    except (InvalidFile, InvalidData, EncoderError) as error:
        fail(str(error))
    result = {"data": data.name, "copies": copies, "noise": noise} | result
    if json:
        print_json(result)
    else:
        _tell(result)


def _alphas(text: str) -> list[float]:
    try:
        alphas = [float(part) for part in text.split(",")]
    except ValueError:
        fail(f"--alpha must be numbers with commas between, not {text!r}", code=2)
    if not all(0 < alpha < 1 for alpha in alphas):
        fail(f"--alpha must lie between 0 and 1, not {text!r}", code=2)
    return alphas


def read_training_set(
    file: Path, encoder: Path | None, *, sample: int = 0, noise: float = 0.0, seed: int = 0
) -> tuple[TrainingSet, FeatureKind]:
    """Every row of the file, whatever its split, except those out of scope."""
    cache = cache_folder()
    read = [row for row in read_rows(file) if not (row.split or "").startswith("oos")]
    if not read:
        raise InvalidFile(f"{file}: no rows")
    rng = np.random.default_rng(seed)
    if sample:
        read = [read[i] for i in np.sort(rng.permutation(len(read))[:sample])]
    inputs = [row.texts for row in read]
    horizon = Horizon(inputs, [row.teacher for row in read], np.ones(len(read), dtype=np.bool_))
    folder = encoder or ensure_default_encoder(cache / "encoder")
    with (
        CachedEncoder(OnnxEncoder(folder, threads=None), cache / "embeddings.sqlite") as cached,
        progress() as bar,
    ):
        rows = training_set(horizon, ProgressEncoder(cached, bar))
    flipped = rng.uniform(size=len(read)) < noise
    return replace(rows, y=np.where(flipped, _nearest_other(rows), rows.y)), feature_kind(inputs)


def _nearest_other(rows: TrainingSet) -> Ints:
    """int64[n]: of each row the label, not its own, whose mean embedding is nearest."""
    means = np.zeros((rows.n_labels, rows.features.shape[1]))
    np.add.at(means, rows.y, rows.features)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    near = rows.features @ means.T
    near[np.arange(len(rows)), rows.y] = -np.inf
    return np.asarray(near.argmax(axis=1), dtype=np.int64)


def _tell(result: dict[str, Any]) -> None:
    rows = [
        [
            point["alpha"],
            f"{point['coverage']:.1%}",
            f"{point['lexical_share']:.1%}",
            "-" if point["agreement"] is None else f"{point['agreement']:.4f}",
            "-" if point["lowest_agreement"] is None else f"{point['lowest_agreement']:.4f}",
            f"{point['violations']} of {point['deployed']}",
        ]
        for point in result["alphas"]
    ]
    print_table(
        f"{result['data']}: {result['splits']} random splits of {result['rows']} rows, "
        f"{result['evidence']}, δ = {result['delta']}",
        ["α", "answered", "by the lexical stage", "agreement", "lowest", "below α"],
        rows,
    )
    console.print(f"{result['cpu_seconds_per_split']} CPU seconds a split.")
