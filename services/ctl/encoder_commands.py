"""`tracerctl encoder`: export, check and compare encoder artifacts."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from shared.encoder.artifact import EncoderInfo, load_encoder_info
from shared.encoder.errors import EncoderError, UnsupportedModel

MIN_COSINE = 0.9999
DEFAULT_FOLDER = Path(".cache/encoder")

app = typer.Typer(
    name="encoder", no_args_is_help=True, help="Export, check and compare text encoders."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def export(
    model: Annotated[
        str | None,
        typer.Option(help="A sentence-transformers folder or name. Default: all-MiniLM-L6-v2."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help=f"Folder for it. Default: {DEFAULT_FOLDER}, with --int8 …-int8."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers: faster, not quite the same numbers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build an encoder artifact: model.onnx, tokenizer.json, encoder.json."""
    begun = time.perf_counter()
    if out is None:
        out = DEFAULT_FOLDER.with_name(f"{DEFAULT_FOLDER.name}{'-int8' if int8 else ''}")
    with _failures(), _progress(f"exporting {model or 'all-MiniLM-L6-v2'}"):
        if int8:
            from shared.encoder.quantise import quantise

            with tempfile.TemporaryDirectory() as scratch:
                _export(model, Path(scratch) / "float32")
                info = quantise(Path(scratch) / "float32", out)
        else:
            info = _export(model, out)
    seconds = round(time.perf_counter() - begun, 3)
    _print({"folder": str(out), **_described(info), "seconds": seconds}, as_json)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="An encoder artifact.")],
    against: Annotated[
        str | None,
        typer.Option("--model", help="The model it was made of. Default: all-MiniLM-L6-v2."),
    ] = None,
    against_sentence_transformers: Annotated[
        bool,
        typer.Option(help="Compare its embeddings with sentence-transformers itself."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify an artifact's hashes; exit 1 when they, or the embeddings, are not as they should."""
    with _failures(), _progress(f"checking {folder}"):
        info = load_encoder_info(folder)
        result: dict[str, Any] = {"folder": str(folder), **_described(info), "hashes": "match"}
        if against_sentence_transformers:
            result["cosine_min"] = _cosine_to_source(folder, against)
    _print(result, as_json)
    cosine = result.get("cosine_min")
    if info.precision == "float32" and cosine is not None and not cosine >= MIN_COSINE:
        _fail(f"smallest cosine {cosine:.6f} is below {MIN_COSINE}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="An encoder artifact.")],
    b: Annotated[Path, typer.Argument(help="Another one, for example its int8 variant.")],
    data: Annotated[Path, typer.Option(help="JSONL with `input` and `teacher` or `label`.")],
    limit: Annotated[int | None, typer.Option(min=10, help="Rows at most, evenly spaced.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: what is usable.")] = None,
    as_json: AsJson = False,
) -> None:
    """What it costs to use another encoder: cosines, speed, cross-validated agreement."""
    from services.ctl.encoder_comparison import UnusableData, read_rows
    from services.ctl.encoder_comparison import compare as compare_encoders
    from shared.encoder.onnx_encoder import OnnxEncoder

    with _failures(), _progress("encoding and cross-validating"):
        try:
            rows = read_rows(data, limit)
        except (OSError, UnusableData) as error:
            _fail(str(error))
        encoders = [OnnxEncoder(folder, threads=threads) for folder in (a, b)]
        named = [
            (folder, encoder, encoder.info.precision)
            for folder, encoder in zip((a, b), encoders, strict=True)
        ]
        result = compare_encoders(named, rows)
    _print(msgspec.to_builtins(result), as_json)


def _export(model: str | None, out: Path) -> EncoderInfo:
    """Without torch where that is possible."""
    if model is None:
        from shared.encoder.default import export_default_encoder

        return export_default_encoder(out)
    if Path(model).is_dir():
        from shared.encoder.bert_onnx import export_bert

        try:
            return export_bert(Path(model), out, name=Path(model).resolve().name)
        except UnsupportedModel as error:
            _say(f"note: {error}")
    from shared.encoder.sentence_transformers_export import export_sentence_transformer

    return export_sentence_transformer(model, out)


def _cosine_to_source(folder: Path, model: str | None) -> float:
    from shared.encoder.default import default_model_folder
    from shared.encoder.onnx_encoder import OnnxEncoder
    from shared.encoder.sentence_transformers_export import load_model, reference_embeddings
    from shared.encoder.sentences import SENTENCES

    source = load_model(model or str(default_model_folder()))
    found = OnnxEncoder(folder).encode(SENTENCES)
    expected = reference_embeddings(source, SENTENCES)
    if found.shape != expected.shape:
        raise EncoderError(f"{folder} has {found.shape[1]} dimensions, not {expected.shape[1]}")
    return float((found * expected).sum(axis=1).min())


def _described(info: EncoderInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "digest": info.digest,
        "dim": info.dim,
        "max_tokens": info.max_tokens,
        "precision": info.precision,
    }


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """A spinner on standard error; a single line of text when that is no terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        _say(what)
        yield


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except EncoderError as error:
        _fail(str(error))


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _flat(result):
        table.add_row(name, f"{value:.5g}" if isinstance(value, float) else str(value))
    # Rich takes colours away by itself when this is no terminal; width must not cut digests.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _flat(result: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
