"""`tracerctl bench flywheel` and `bench drift`: the whole loop on your own data, in one process."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from services.ctl.files import InvalidFile, Row
from services.ctl.output import console, fail, print_json, print_table, progress
from services.ctl.paths import cache_folder
from services.ctl.rehearsal.drift import DAYS as DRIFT_DAYS
from services.ctl.rehearsal.drift import Drift, per_day, run_world, worlds
from services.ctl.rehearsal.flywheel import ALL_LABELS, DEFERRED_ONLY, Day, Regime, run_regime
from services.ctl.rehearsal.remembering import RememberingEncoder
from services.ctl.rehearsal.traffic import read_traffic
from shared.contracts.tasks import Task
from shared.core.types import InvalidData
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder

ENCODE_AT_ONCE = 512
LEAST_ROWS_A_DAY = 50


class Refit(StrEnum):
    """As the task's setting."""

    FULL = "full"
    INCREMENTAL = "incremental"


Data = Annotated[
    Path | None, typer.Option(help="Traces, one JSON object a line; default: the sample's.")
]
Alpha = Annotated[float, typer.Option(help="Agreement to certify.", min=0.5, max=0.999)]
EncoderFolder = Annotated[Path | None, typer.Option(help="Encoder artifact; default: MiniLM.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def flywheel(
    data: Data = None,
    days: Annotated[int, typer.Option(help="Days to spread the rows over.", min=1)] = 5,
    audit: Annotated[
        float, typer.Option(help="Share of handled requests audited.", min=0.001, max=1)
    ] = 0.05,
    alpha: Alpha = 0.95,
    seed: Annotated[int, typer.Option(help="Of the order of the requests.")] = 0,
    refit: Annotated[
        Refit, typer.Option(help="Of the task: full every day, or incremental where it may be.")
    ] = Refit.FULL,
    encoder: EncoderFolder = None,
    json: Json = False,
) -> None:
    """Live through days under three regimes: what versions claim, and what is true."""
    rows = _rows(data, LEAST_ROWS_A_DAY * days)
    regimes = (ALL_LABELS, DEFERRED_ONLY, Regime.audits(audit))
    task = Task(name="bench", alpha=alpha, refit=refit.value)
    found: list[Day] = []
    with progress() as bar:
        remembering = _encoder(encoder, rows, bar)
        shown = bar.add_task("days", total=days * len(regimes))
        for regime in regimes:
            try:
                found += run_regime(
                    rows, remembering, regime, task, days=days, seed=seed,
                    done=lambda day: bar.advance(shown),
                )  # fmt: skip
            except InvalidData as error:
                fail(str(error))
    result = {
        "data": data.name if data else "sample", "rows": len(rows), "alpha": alpha,
        "delta": task.delta, "seed": seed, "refit": refit.value,
        "days": [asdict(day) for day in found],
        "last_day": _last_day(found, days),
    }  # fmt: skip
    if json:
        print_json(result)
    else:
        _tell_flywheel(result)


def drift(
    data: Data = None,
    audit: Annotated[
        float, typer.Option(help="Share of handled requests audited.", min=0.001, max=1)
    ] = 0.1,
    alpha: Alpha = 0.95,
    seed: Annotated[int, typer.Option(help="Of the order of the requests.")] = 0,
    encoder: EncoderFolder = None,
    json: Json = False,
) -> None:
    """Change the teacher or the traffic amid the fourth day: what do users see?"""
    rows = _rows(data, 0)
    try:
        daily = per_day(rows)
    except ValueError as error:
        fail(f"{data}: {error}")
    makes = worlds(len({row.teacher for row in rows}))
    task = Task(name="bench", alpha=alpha, audit_share=audit)
    found: list[Drift] = []
    with progress() as bar:
        remembering = _encoder(encoder, rows, bar)
        shown = bar.add_task("days", total=DRIFT_DAYS * len(makes))
        for make in makes:
            try:
                found.append(
                    run_world(make(rows, seed), remembering, task, seed, lambda: bar.advance(shown))
                )
            except InvalidData as error:
                fail(str(error))
    bound = round(1 - alpha + 0.02, 4)
    result = {
        "data": data.name if data else "sample", "requests_a_day": daily, "alpha": alpha,
        "audit_share": audit, "seed": seed, "bound": bound,
        "worlds": [asdict(one) | {"within_bound": one.worst_window <= bound} for one in found],
    }  # fmt: skip
    if json:
        print_json(result)
    else:
        _tell_drift(result)


def _rows(data: Path | None, least: int) -> list[Row]:
    try:
        rows = read_traffic(data)
    except InvalidFile as error:
        fail(str(error))
    if len(rows) < least:
        fail(f"{data}: {len(rows)} rows are too few: needs {least} or more, or fewer --days")
    if len({row.teacher for row in rows}) < 2:
        fail(f"{data}: field `teacher` is the same in every row: nothing to learn")
    return rows


def _encoder(folder: Path | None, rows: list[Row], bar: Progress) -> RememberingEncoder:
    """One that knows all texts, so that the days cost what the days cost."""
    try:
        found = folder or ensure_default_encoder(cache_folder() / "encoder")
        encoder = RememberingEncoder(OnnxEncoder(found, threads=None))
    except EncoderError as error:
        fail(str(error))
    texts = [text for row in rows for text in row.texts]
    shown = bar.add_task("encoding", total=len(texts))
    for start in range(0, len(texts), ENCODE_AT_ONCE):
        some = texts[start : start + ENCODE_AT_ONCE]
        encoder.encode(some)
        bar.advance(shown, len(some))
    return encoder


def _last_day(found: list[Day], days: int) -> dict[str, Any]:
    """What the regimes come to on the last day, and how far behind all labels each is."""
    last = {day.regime: day for day in found if day.day == days}
    best = last[ALL_LABELS.name].coverage
    return {
        regime: {
            "coverage": day.coverage,
            "points_behind_all_labels": round(100 * (best - day.coverage), 2),
            "claims_refuted": sum(d.claim_refuted for d in found if d.regime == regime),
        }
        for regime, day in last.items()
    }


def _tell_flywheel(result: dict[str, Any]) -> None:
    print_table(
        f"{result['data']}: {result['rows']} rows, α = {result['alpha']}",
        ["day", "regime", "labelled", "claimed coverage", "true", "claimed agreement", "true",
         "fit, CPU s"],
        [
            [
                day["day"], day["regime"], day["labelled"], f"{day['claimed_coverage']:.3f}",
                f"{day['coverage']:.3f}", f"{day['claimed_agreement']:.3f}",
                "-" if day["agreement"] is None else f"{day['agreement']:.3f}",
                f"{day['fit_cpu_seconds']:.1f}" + (", incremental" if day["incremental"] else ""),
            ]
            for day in sorted(result["days"], key=lambda day: day["day"])
        ],
    )  # fmt: skip
    for regime, last in result["last_day"].items():
        console.print(
            f"{regime}: {last['points_behind_all_labels']:+.1f} points of coverage behind all "
            f"labels on the last day, {last['claims_refuted']} claims refuted"
        )


def _tell_drift(result: dict[str, Any]) -> None:
    def some(value: int | None) -> str:
        return "never" if value is None else str(value)

    print_table(
        f"{result['data']}: {result['requests_a_day']} requests a day, α = {result['alpha']}, "
        f"{result['audit_share']:.1%} audits; bound on wrong answers {result['bound']:.3f}",
        ["the change", "worst 2,000, before", "after", "requests to probation", "to the trip",
         "coverage by day"],
        [
            [
                one["world"], f"{one['wrong_before']:.3f}", f"{one['worst_window']:.3f}",
                some(one["to_probation"]), some(one["to_trip"]),
                " ".join(f"{day:.2f}" for day in one["coverage"]),
            ]
            for one in result["worlds"]
        ],
    )  # fmt: skip
