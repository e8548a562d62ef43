"""`tracerctl replay`: a file into the raw topic, or past versions made again from the topic."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from services.ctl.output import fail
from services.ctl.replay_file import SourceFile, publish_file
from services.ctl.replay_range import Ends, replay_range
from shared.contracts.mapping import Format


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(help="Traces to publish, one JSON object a line; or none, see --from."),
    ] = None,
    *,
    task: Annotated[str, typer.Option(help="The task they belong to.")],
    begin: Annotated[
        str | None,
        typer.Option("--from", help="Audit: read `traces` from this time (ISO 8601, UTC) or these "
                     "offsets (0:120,1:98) on; default: the first.", rich_help_panel="Audit"),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", help="Audit: and before this time or these offsets; default: the "
                     "last.", rich_help_panel="Audit"),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Audit: only this version; default: all that are stored.",
                     rich_help_panel="Audit"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(envvar="TRACER_STORE", help="Audit: the trainer's store, to name the first "
                     "trace that differs.", rich_help_panel="Audit"),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(envvar="TRACER_ENCODER", help="Audit: encoder artifact; default: MiniLM.",
                     rich_help_panel="Audit"),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="FILE: another system's log, read by the task's mapping.",
                     rich_help_panel="File"),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option("--batch-input", help="FILE of openai_batch: the batch's input file.",
                     rich_help_panel="File"),
    ] = None,
    days: Annotated[
        int, typer.Option(help="FILE: days to spread undated rows over.", min=1,
                          rich_help_panel="File"),
    ] = 1,
    start: Annotated[
        datetime | None,
        typer.Option(help="FILE: first of those days; default: so that the last is yesterday.",
                     rich_help_panel="File"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Two kinds of replay.

    With FILE: publish its traces to `traces.raw`. Rows of `split: test` are left out; with
    --format, calls that cannot be used are counted and left out (see `tracerctl sources check`).

    With --from or --to: an audit, which reads that range of the topic `traces`, fits every stored
    version of the task again, and compares it with what was published, byte for byte; a difference
    is named and the exit code is 1.
    """
    ranged = begin is not None or end is not None
    if (file is None) != ranged:
        fail("give a FILE to publish, or --from/--to to audit what was published", code=2)
    if file is not None:
        source = SourceFile(format, inputs) if format is not None else None
        publish_file(file, task=task, source=source, days=days, start=start, json=json)
    else:
        ends = Ends.parse(begin, end)
        replay_range(ends, task=task, version=version, store=store, folder=encoder, json=json)
