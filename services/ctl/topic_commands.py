"""`tracerctl topics`: make the topics that `schemas/topics` describes."""

from __future__ import annotations

from typing import Annotated

import typer

from services.ctl.environment import environment
from services.ctl.output import console, fail, print_json
from shared.bus.admin import create_topics
from shared.bus.errors import Fatal, Retryable
from shared.contracts.topics import load_topics

app = typer.Typer(help="Topics, from schemas/topics.", no_args_is_help=True)


@app.command()
def create(
    replication: Annotated[int | None, typer.Option(help="Overrides the specs'.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create the topics that are missing; those that exist are left as they are."""
    settings = environment()
    try:
        lines = create_topics(
            settings.bootstrap_servers,
            load_topics().values(),
            prefix=settings.topic_prefix,
            replication=replication,
            client_config=settings.kafka,
        )
    except (Retryable, Fatal) as error:
        fail(f"{error}; is TRACER_BOOTSTRAP_SERVERS right?")
    if json:
        print_json([dict(zip(("state", "topic"), line.split("\t"), strict=True)) for line in lines])
        return
    for line in lines:
        console.print(line)
