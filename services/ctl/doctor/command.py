"""`tracerctl doctor`: would the services run here?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from rich.table import Table
from rich.text import Text

from services.ctl.doctor import broker, files, permissions, probe, redis_checks, versions
from services.ctl.doctor.findings import (
    DoctorSettings,
    Finding,
    Patient,
    Service,
    State,
    failed,
    skipped,
)
from services.ctl.output import console, fail, plain_text, print_json
from services.ctl.registry_access import Json
from shared.bus.errors import Fatal
from shared.invalid_settings import told

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red", State.SKIPPED: "dim"}


def doctor(
    service: Annotated[
        list[Service] | None,
        typer.Option(help="Look at what this service needs; may be repeated. Default: all."),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Also make a topic, send a record through it, read the broker's clock, delete it.",
        ),
    ] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds a server may take to answer.", min=0.1, max=120)
    ] = 10.0,
    skew: Annotated[
        float, typer.Option(help="Seconds that clocks may differ.", min=0, max=3600)
    ] = 1.0,
    json: Json = False,
) -> None:
    """Look at broker, topics, permissions, Redis, clocks, tasks, sources, keys and encoder.

    Reads the environment that a service would. Exit codes: 0 all well, warnings included; 1 a
    check failed; 2 a setting cannot be used.
    """
    try:
        settings = DoctorSettings()
    except ValueError as error:
        fail(told(error), code=2)
    services = tuple(dict.fromkeys(service or Service))
    patient = Patient(settings, services, probe, patience, skew)
    findings = list(examine(patient))
    well = all(finding.state is not State.FAILED for finding in findings)
    if json:
        print_json({"well": well, "checks": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if not well:
        raise typer.Exit(1)


def examine(patient: Patient) -> Iterator[Finding]:
    """Every check, in the order in which one would mend things."""
    found, tasks = files.tasks(patient)
    yield found
    yield from files.trials(patient, tasks)
    mapped, sources = files.sources(patient, tasks)
    if mapped is not None:
        yield mapped
    yield files.keys(patient)
    found, digest = files.encoder(patient)
    yield found
    answers = True
    for found in redis_checks.examine(patient):
        answers = answers and not (found.check == "redis.reach" and found.state is State.FAILED)
        yield found
    if answers:
        yield from versions.examine(patient, sorted(tasks), digest)
    yield from _kafka(patient, sources)


def _kafka(patient: Patient, sources: list[str]) -> Iterator[Finding]:
    try:
        reached = broker.Broker(patient)
        admin = reached.admin
        found, cluster = reached.reach()
        yield found
        if cluster is None:
            yield skipped("kafka.topics", "the broker does not answer")
            return
        yield from broker.topics(admin, cluster, patient)
        yield from broker.source_topics(sources, cluster)
        if not broker.is_real(cluster):
            yield skipped("kafka.permissions", "the demo's broker lets everybody do everything")
            return
        yield from permissions.of_topics(admin, set(cluster.topics), patient)
        there = [name for name in sources if name in cluster.topics]
        yield from permissions.of_sources(admin, there, patient)
        yield from permissions.of_groups(admin, patient)
        if patient.probe:
            yield from probe.probe(admin, patient)
        else:
            yield from probe.not_asked()
    except KafkaException as error:
        yield failed("kafka.settings", broker.said(error), "correct TRACER_KAFKA")
    except Fatal as error:
        yield failed("kafka.settings", str(error), "correct TRACER_KAFKA")


def _print(findings: list[Finding]) -> None:
    table = Table("check", "", "found, and what to do", title="tracer", title_justify="left")
    for finding in findings:
        said = Text(plain_text(finding.found))
        if finding.fix:
            said.append(f"\n→ {plain_text(finding.fix)}", style="bold")
        table.add_row(finding.check, Text(finding.state, style=_COLOURS[finding.state]), said)
    console.print(table)
    counts = Counter(finding.state for finding in findings)
    console.print(", ".join(f"{counts[state]} {state}" for state in State if counts[state]))
