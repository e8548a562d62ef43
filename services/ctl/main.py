"""tracerctl: the command line for people."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from confluent_kafka import KafkaException

from services.ctl.alpha_command import alpha
from services.ctl.bench_commands import app as bench_app
from services.ctl.dead_letter_commands import app as dead_letters_app
from services.ctl.demo.command import demo
from services.ctl.doctor.command import doctor
from services.ctl.encoder_commands import app as encoder_app
from services.ctl.explain_command import explain
from services.ctl.fleet_command import fleet
from services.ctl.key_commands import app as keys_app
from services.ctl.model_commands import app as models_app
from services.ctl.model_commands import status
from services.ctl.output import console, fail
from services.ctl.replay import replay
from services.ctl.report_command import report
from services.ctl.restore_command import restore
from services.ctl.scan_command import scan
from services.ctl.serving_commands import pause, promote, resume, rollback, withdraw
from services.ctl.source_commands import app as sources_app
from services.ctl.topic_commands import app as topics_app
from services.ctl.whatif_command import whatif
from shared.bus.errors import Fatal
from shared.bus.kafka_errors import error_of
from shared.redaction.load import InvalidRedactor

app = typer.Typer(
    help="Certified light classifiers from LLM traces, on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        console.print(f"tracerctl {version('tracer-kafka')}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.command()(demo)
app.command()(doctor)
app.command()(scan)
app.command()(whatif)
app.command()(report)
app.command()(explain)
app.command()(replay)
app.command()(status)
app.command()(fleet)
app.command()(rollback)
app.command()(restore)
app.command()(pause)
app.command()(resume)
app.command()(promote)
app.command()(withdraw)
app.command()(alpha)
app.add_typer(bench_app, name="bench")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(models_app, name="models")
app.add_typer(encoder_app, name="encoder")
app.add_typer(keys_app, name="keys")
app.add_typer(topics_app, name="topics")
app.add_typer(sources_app, name="sources")


def run() -> None:
    """What no command has made a message of itself is one here, not a traceback."""
    try:
        app()
    except Fatal as error:
        _end(str(error), 1)
    except KafkaException as error:  # as clients are made: a property of TRACER_KAFKA
        _end(f"TRACER_KAFKA: {error_of(error).str()}", 2)
    except InvalidRedactor as error:
        _end(str(error), 2)


def _end(message: str, code: int) -> NoReturn:
    with suppress(typer.Exit):
        fail(message)
    sys.exit(code)


if __name__ == "__main__":
    run()
