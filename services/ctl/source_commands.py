"""`tracerctl sources`: what would become of a log, before it is sent anywhere."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.ctl.environment import environment
from services.ctl.output import console, fail, print_json, print_table
from services.ctl.source_files import Report, Seen, calls_of, readers_for
from services.ctl.tasks_file import tasks_in
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format
from shared.contracts.taxonomy import Taxonomy, UnknownLabel
from shared.sources.catalogue import Lost
from shared.sources.files import UnreadableFile

app = typer.Typer(help="Logs of other systems as traces.", no_args_is_help=True)

_TEXT_CHARS = 60


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A log in one of the formats.")],
    format: Annotated[Format, typer.Option(help="What the file holds.")],
    task: Annotated[str, typer.Option(help="The task whose mapping reads it.")],
    inputs: Annotated[
        Path | None, typer.Option("--batch-input", help="openai_batch: the batch's input file.")
    ] = None,
    show: Annotated[int, typer.Option(help="Calls to show.", min=0)] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what would become of each call of FILE; nothing is published.

    Exit code 1 when no call became a trace.
    """
    settings = environment()
    readers = readers_for(settings.tasks, task, format)
    taxonomy = _taxonomy(settings.tasks, task)
    report = Report()
    calls = calls_of(file, format, readers, report, inputs)
    try:
        shown = [_row(seen, taxonomy) for seen in islice(calls, show)]
        for _ in calls:
            pass  # for the report
    except UnreadableFile as error:
        fail(str(error))
    if json:
        print_json(
            {
                "file": str(file), "task": task, "format": format.value,
                "taken": report.taken, "refused": report.refused, "skipped": report.skipped,
                "reasons": dict(report.reasons), "calls": shown,
            }
        )  # fmt: skip
    else:
        rows = [[row["line"], row["becomes"], row["label"], row["says"]] for row in shown]
        print_table(str(file), ("line", "becomes", "label", "text or reason"), rows)
        console.print(f"{report.taken} traces, {report.refused} refused, {report.skipped} skipped")
        for line in report.lines():
            console.print(line)
    if report.taken == 0:
        raise typer.Exit(1)


def _taxonomy(tasks_file: Path, task: str) -> Taxonomy | None:
    return Taxonomy(tasks_in(tasks_file)[task]) if tasks_file.exists() else None


def _row(seen: Seen, taxonomy: Taxonomy | None) -> dict[str, Any]:
    result = seen.result
    row: dict[str, Any] = {"line": seen.number, "becomes": "skipped", "label": "", "says": result}
    if isinstance(result, Lost):
        row |= {"becomes": "refused", "says": f"{result.error.field or 'record'}: {result.error}"}
    elif isinstance(result, RawTrace):
        row |= {"becomes": "trace", "label": result.teacher, "says": _short(result.input)}
        row["trace"] = msgspec.to_builtins(result)
        try:
            row["label"] = taxonomy.normalise(result.teacher) if taxonomy else result.teacher
        except UnknownLabel as error:
            row |= {"becomes": "dead letter", "says": f"teacher: {error}"}
    return row


def _short(text: str | list[str]) -> str:
    text = text if isinstance(text, str) else " | ".join(text)
    return text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS - 1]}…"
