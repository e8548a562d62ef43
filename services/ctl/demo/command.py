"""`tracerctl demo`: the whole system on one machine, five days in a few minutes."""

from __future__ import annotations

import json as jsonlib
import shlex
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from services.ctl.demo.cluster import ENVIRONMENT, Cluster, ClusterSettings
from services.ctl.demo.plan import make_plan
from services.ctl.demo.report import write_last_report
from services.ctl.demo.run import Demo, write_summary
from services.ctl.demo.traffic import TimedOut, Traffic
from services.ctl.embedded.processes import ChildDied, ChildNotReady
from services.ctl.files import InvalidFile, Row, read_rows
from services.ctl.output import console as out
from services.ctl.output import fail, messages, print_json
from services.ctl.paths import cache_folder
from services.ctl.sample.generator import generate
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.clock import SystemClock
from shared.contracts.topics import Topic
from shared.encoder.default import ensure_default_encoder
from shared.encoder.errors import EncoderError
from shared.rounding import dollars, whole

DAYS = 5
SAMPLE_ROWS = 6_000
MARKER = ".tracer-demo"


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Traces, one JSON object a line; default: our own sample.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Agreement to certify.", min=0.01, max=0.999)] = 0.95,
    folder: Annotated[Path, typer.Option(help="Logs, windows and summary.")] = Path(".demo"),
    routers: Annotated[int, typer.Option(help="Routers in one group.", min=1)] = 1,
    bootstrap: Annotated[
        str | None, typer.Option(help="A running Kafka; default: the embedded broker.")
    ] = None,
    last_day_share: Annotated[
        float | None,
        typer.Option(help="Share of the live requests kept for the last day.", min=0, max=1),
    ] = None,
    kill_router_on: Annotated[
        int | None, typer.Option(help="Kill -9 a router amid this day's requests.", min=1, max=DAYS)
    ] = None,
    console: Annotated[
        bool, typer.Option("--console", help="Keep a console of the five days running at the end.")
    ] = False,
    console_port: Annotated[int, typer.Option(help="Its port.", min=1, max=65_535)] = 8020,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Replay five days of traces through every service, with live requests in between."""
    say = messages.print if json else out.print
    cache = cache_folder()
    try:
        given = list(read_rows(data)) if data else None
        _clear(folder)
        encoder = ensure_default_encoder(cache / "encoder")
        rows = given or _sample(folder)
        plan = make_plan(rows, task=_task(data), days=DAYS, last_day_share=last_day_share)
        settings = ClusterSettings(
            folder=folder.absolute(),
            encoder=encoder.absolute(),
            cache=cache.absolute(),
            alpha=alpha,
            routers=routers,
            bootstrap=bootstrap,
            console_port=console_port if console else None,
        )
        say(f"{len(rows)} rows of {data or 'the sample'}; starting broker, Redis and services …")
        with Cluster(settings, plan, rows) as cluster:
            summary = _play(cluster, say, kill_router_on)
            report = write_last_report(cluster.redis_url, summary, folder)
            path = folder / "summary.json"
            write_summary(summary, path)
            if json:
                print_json(summary)
            else:
                _tell(summary, path)
            if report is not None:
                say(
                    f"What the last version handles, and why not the rest: {report}", soft_wrap=True
                )
            if console:
                _keep(cluster, console_port, folder)
    except (
        InvalidFile, EncoderError, TimedOut, ChildDied, ChildNotReady, Fatal, Retryable,
    ) as error:  # fmt: skip
        fail(f"{error}\nlogs are in {folder}")
    if summary["undecided"] or (
        summary["delivery"] == "exactly_once" and summary["decided_more_than_once"]
    ):
        raise typer.Exit(1)


def _play(cluster: Cluster, say: Any, kill_router_on: int | None) -> dict[str, Any]:
    topics = (Topic.DECISIONS, Topic.MODELS, Topic.TRACES_RAW, Topic.DEAD_LETTERS)
    publisher = KafkaPublisher(bootstrap=cluster.bootstrap)
    source = KafkaSource(
        bootstrap=cluster.bootstrap,
        group=f"{cluster.prefix}demo-observer",
        topics=[f"{cluster.prefix}{topic}" for topic in topics],
    )
    traffic = Traffic(publisher, source, cluster.prefix, SystemClock(), cluster.check)
    try:
        return Demo(
            cluster=cluster,
            traffic=traffic,
            plan=cluster.plan,
            say=lambda line: say(line, soft_wrap=True),
            kill_router_on=kill_router_on,
        ).play()
    finally:
        source.close()
        publisher.close()


def _keep(cluster: Cluster, port: int, folder: Path) -> None:
    """Until Ctrl-C."""
    task, there = cluster.plan.task, shlex.quote(str(folder / ENVIRONMENT))
    messages.print(
        f"In another terminal: . {there}; tracerctl explain 'my parcel never came' --task {task}",
        soft_wrap=True,
    )
    messages.print(f"Console: http://127.0.0.1:{port}   (Ctrl-C ends it, and the demo)")
    try:
        while True:
            cluster.check()
            time.sleep(1.0)
    except KeyboardInterrupt:
        messages.print("Ending …")


def _clear(folder: Path) -> None:
    """Empty the folder of an earlier demo; one that is not a demo's is never touched."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            fail(f"{folder} is not empty and not an earlier demo's; choose another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _sample(folder: Path) -> list[Row]:
    path = folder / "sample.jsonl"
    lines = (jsonlib.dumps(row) + "\n" for row in generate(SAMPLE_ROWS))
    path.write_text("".join(lines), encoding="utf-8")
    return list(read_rows(path))


def _task(data: Path | None) -> str:
    if data is None:
        return "support"
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in data.stem.lower()).strip("-")
    return name[:63] or "demo"


def _tell(summary: dict[str, Any], path: Path) -> None:
    """The result a person understands."""
    last = summary["days"][-1]
    agreement = summary["agreement"]
    out.print()
    if last["verdict"] != "published" and not summary["calls_saved"]:
        out.print(f"Nothing could be certified at α = {summary['alpha']}: {last['reason']}")
        out.print(f"All {summary['requests']} live requests went to the LLM, as they should.")
    else:
        agreed = (
            "none of the live requests"
            if agreement is None
            else f"{summary['coverage']:.1%} of the live requests and agreed with the LLM on "
            f"{agreement:.1%} of those"
        )
        out.print(
            f"On the last day the surrogate answered {agreed} "
            f"(asked for: {whole(summary['alpha'])})."
        )
        out.print(
            f"Over all days {summary['calls_saved']} of {summary['requests']} LLM calls were "
            f"saved, {dollars(summary['dollars_saved'])}; at the last day's coverage "
            f"${summary['dollars_saved_per_million_requests']:,.0f} per million requests."
        )
    out.print(
        f"Every request once: {summary['decided_once']} decided once, "
        f"{summary['decided_more_than_once']} more than once, {summary['undecided']} not at all."
    )
    out.print(f"Summary: {path}   logs and windows: {path.parent}/")
