"""`tracerctl scan`: is this traffic worth it, before anything is deployed?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from services.ctl.files import InvalidFile, read_rows
from services.ctl.output import console, fail, messages, print_json, progress
from services.ctl.paths import cache_folder
from services.ctl.report_command import write_page
from services.ctl.scan import SPLITS, ProgressEncoder, report_of
from services.ctl.scan import scan as run_scan
from shared.core.fit import Settings
from shared.core.gate import NEXT_SAMPLE
from shared.core.types import InvalidData
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.threads import usable_threads
from shared.onnx.parity import ParityError
from shared.rounding import down, whole


def scan(
    file: Annotated[Path, typer.Argument(help="Traces, one JSON object a line; - is stdin.")],
    alpha: Annotated[float, typer.Option(help="Agreement to certify.", min=0.01, max=0.999)] = 0.95,
    delta: Annotated[
        float, typer.Option(help="Risk of a wrong certificate.", min=0.001, max=0.5)
    ] = 0.1,
    evidence: Annotated[str, typer.Option(help="crossfit or holdout.")] = "crossfit",
    encoder: Annotated[
        Path | None,
        typer.Option(envvar="TRACER_ENCODER", help="Encoder artifact; default: MiniLM."),
    ] = None,
    next_sample: Annotated[
        float, typer.Option(help="New samples, times the evidence, that must agree too.", min=0)
    ] = NEXT_SAMPLE,
    label_floor: Annotated[
        float | None, typer.Option(help="Defer labels that agree less whole.", min=0.01, max=0.999)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Also write what it handles and why not, as this HTML file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit and certify on a file offline, and evaluate on its `split: test` rows."""
    if evidence not in ("crossfit", "holdout"):
        fail(f"--evidence must be crossfit or holdout, not {evidence!r}", code=2)
    if report is not None and not report.parent.is_dir():
        fail(f"--report {report}: there is no folder {report.parent}", code=2)
    cache = cache_folder()
    settings = Settings(
        alpha=alpha,
        delta=delta,
        kind="holdout" if evidence == "holdout" else "crossfit",
        next_sample=next_sample,
        label_floor=label_floor,
        seed=seed,
        jobs=usable_threads(),
    )
    try:
        rows = list(read_rows(file))
        folder = encoder or ensure_default_encoder(cache / "encoder")
        cached = CachedEncoder(OnnxEncoder(folder, threads=None), cache / "embeddings.sqlite")
        with progress() as bar:
            scanned = run_scan(
                rows, name=str(file), settings=settings, encoder=ProgressEncoder(cached, bar)
            )
    except (InvalidFile, InvalidData, ParityError, EncoderError) as error:
        fail(str(error))
    if json:
        print_json(scanned.result)
    else:
        _tell(scanned.result)
    if report is not None:  # last: if it fails, the verdict has been told
        write_page(report_of(scanned, name=file.stem, settings=settings), report, "--report")
        messages.print(f"{report}: what it handles, and why not the rest.")


def _tell(result: dict[str, Any]) -> None:
    """The result in plain sentences."""
    alpha, delta = result["alpha"], result["delta"]
    if result["refused"]:
        console.print(f"Refused at α = {alpha}: {result['reason']}.")
        _tell_left_out(result)
        return
    lower = down(result["certified_agreement_lower"], 3)
    console.print(
        f"Certified ({result['method']}, {result['evidence']}): a surrogate of "
        f"{result['n_traces']} traces may answer {result['certified_coverage']:.1%} of the "
        f"traffic; its agreement there is at least {lower:.3f} "
        f"(with probability {whole(1 - delta)})."
    )
    if result["n_test"] and result["invalid_share"]:
        console.print(
            f"{result['invalid_share']:.1%} of the held-out rows have another number of texts than "
            "was fitted on, and are deferred."
        )
    if result["n_test"] and result["agreement"] is None:
        console.print(f"Of {result['n_test']} held-out rows it answers none.")
    elif result["n_test"]:
        console.print(
            f"On {result['n_test']} held-out rows it answers {result['coverage']:.1%} "
            f"and agrees on {result['agreement']:.1%} of those; "
            f"{result['lexical_share']:.1%} need no encoder."
        )
    else:
        messages.print(
            "The file has no `split: test` rows, so nothing was held out to check it on."
        )
    _tell_left_out(result)
    console.print(f"Fitted in {result['fit_seconds']} s.")


def _tell_left_out(result: dict[str, Any]) -> None:
    """Rows that were neither fitted on nor held out, and what a router would do with them."""
    answered = result.get("answered_elsewhere", {})
    for split, n in sorted(result["left_out"].items()):
        would = f"; it would answer {answered[split]:.1%} of them" if split in answered else ""
        console.print(f"{n} rows of `split: {split}` were left out{would}.")
    if result["left_out"]:
        messages.print(f"({SPLITS.capitalize()}, those of test held out.)")
