"""`tracerctl dead-letters`: what could not be used, why, and putting it back after a repair."""

from __future__ import annotations

import base64
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.ctl.environment import environment
from services.ctl.output import console, fail, print_json, print_table
from services.ctl.registry_access import By, Json, who
from services.ctl.tasks_file import tasks_if_any
from shared.bus.base import Publisher
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.bus.kafka_range import RangeReader
from shared.bus.kafka_transaction import TransactionalPublisher
from shared.bus.redriving import (
    MOST_REDRIVES,
    Plan,
    StoredLetter,
    Which,
    letters_of,
    plan,
    put_back,
    topics_taking_back,
    what_of_those_before,
)
from shared.clock import SystemClock
from shared.contracts.topics import Topic
from shared.settings import ServiceSettings

app = typer.Typer(help="Dead letters: list, show, redrive.", no_args_is_help=True)

_SHOWN_CHARS = 60

Task = Annotated[str | None, typer.Option(help="Only of this task.")]
FromTopic = Annotated[str | None, typer.Option("--topic", help="Only from this topic.")]
Service = Annotated[str | None, typer.Option(help="Only what this service refused.")]
Stage = Annotated[str | None, typer.Option(help="Only of this stage, such as `handle`.")]
Field = Annotated[str | None, typer.Option(help="Only with this field at fault.")]
Why = Annotated[str | None, typer.Option("--reason", help="Only with this in error or message.")]
Since = Annotated[datetime | None, typer.Option(help="Only from this time on (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Only before this time (UTC).")]


@app.command("list")
def list_letters(
    task: Task = None, topic: FromTopic = None, service: Service = None, stage: Stage = None,
    field: Field = None, reason: Why = None, since: Since = None, until: Until = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    json: Json = False,
) -> None:  # fmt: skip
    """The newest dead letters, and how many there are for each reason."""
    settings = environment()
    wanted = _which(settings, task, topic, service, stage, field, reason, since, until)
    found = [stored for stored in _letters(settings) if wanted.matches(stored)]
    counts = Counter((s.letter.service, s.letter.field, s.letter.error) for s in found)
    if json:
        by_reason = [
            {"service": key[0], "field": key[1], "error": key[2], "letters": n}
            for key, n in counts.most_common()
        ]
        print_json(
            {"letters": len(found), "by_reason": by_reason,
             "newest": [plain(stored) for stored in found[-limit:]]}
        )  # fmt: skip
        return
    if not found:
        console.print("No dead letters, or none like that.")
        return
    print_table(
        f"dead letters, the newest {min(limit, len(found))} of {len(found)}",
        ["id", "at", "from", "by", "task", "field", "why", "put back"],
        [
            (s.place, s.letter.at.isoformat(timespec="seconds"), s.letter.topic, s.letter.service,
             s.task or "", s.letter.field, s.letter.message[:_SHOWN_CHARS],
             _redriven(s)) for s in found[-limit:]
        ],
    )  # fmt: skip
    print_table(
        "by reason",
        ["letters", "service", "field", "error"],
        [(n, *key) for key, n in counts.most_common()],
    )


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Its id in the list, such as 2:41.")],
    json: Json = False,
) -> None:
    """Everything about one dead letter, the original message included."""
    found = [stored for stored in _letters(environment()) if stored.place == letter]
    if not found:
        fail(f"no dead letter {letter}; see `tracerctl dead-letters list`")
    details = plain(found[0])
    if json:
        print_json(details)
        return
    for name, value in details.items():
        console.print(f"{name}: ", style="bold", end="")
        console.print(str(value))


@app.command("redrive")
def redrive_letters(
    letter: Annotated[list[str] | None, typer.Argument(help="Ids in the list.")] = None,
    task: Task = None, topic: FromTopic = None, service: Service = None, stage: Stage = None,
    field: Field = None, reason: Why = None, since: Since = None, until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    most: Annotated[
        int, typer.Option(help="Refuse what was put back so often already.", min=1, max=100)
    ] = MOST_REDRIVES,
    by: By = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Put the originals back to their topics, each once: after the cause has been repaired.

    Exit code 1: none was put back, or one of the ids is no letter's.
    """
    settings = environment()
    wanted = _which(settings, task, topic, service, stage, field, reason, since, until, letter)
    if wanted == Which() and not every:
        fail("say which (ids, --task, --reason, …), or --all", code=2)
    topics, transactions = _topics(settings), settings.delivery == "exactly_once"
    publisher = None if dry_run else _publisher(settings)  # first: it ends what ran before it
    try:
        found = [stored for stored in _letters(settings) if wanted.matches(stored)]
        made = plan(found, topics=topics, most_redrives=most)
        if publisher is not None:
            put_back(
                made.ready, publisher, transactions=transactions, by=who(by) or "",
                at=SystemClock().now(),
            )  # fmt: skip
    except (Retryable, Fatal) as error:
        fail(f"{error}; run it again: {what_of_those_before(transactions=transactions)}")
    finally:
        if publisher is not None:
            publisher.close()
    missing = sorted(set(letter or ()) - {stored.place for stored in found})
    _tell(made, missing, dry_run=dry_run, json=json)
    if missing:
        fail(f"no such dead letters: {', '.join(missing)}; see `tracerctl dead-letters list`")
    if not found:
        fail("no dead letters like that; see `tracerctl dead-letters list`")
    if not made.ready:
        fail("all of them were refused, nothing to put back")


def plain(stored: StoredLetter) -> dict[str, Any]:
    """A letter as JSON has it."""
    letter = stored.letter
    try:
        value = {"value": letter.value.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(letter.value).decode()}
    return {
        "id": stored.place,
        "task": stored.task,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "at": letter.at.isoformat(),
        "service": letter.service,
        "stage": letter.stage,
        "component": letter.component,
        "error": letter.error,
        "message": letter.message,
        "field": letter.field,
        "redrives": stored.redrives,
        "redriven_by": stored.redriven_by,
        "redriven_at": stored.redriven_at,
        "key": letter.key.decode("utf-8", "replace") if letter.key is not None else None,
        "headers": {name: value.decode("utf-8", "replace") for name, value in letter.headers},
        **value,
    }


def _which(
    settings: ServiceSettings, task: str | None, topic: str | None, service: str | None,
    stage: str | None, field: str | None, reason: str | None, since: datetime | None,
    until: datetime | None, places: list[str] | None = None,
) -> Which:  # fmt: skip
    return Which(
        task=task,
        topics=(topic, settings.topic(topic)) if topic else (),  # a source's has no prefix
        service=service,
        stage=stage,
        field=field,
        reason=reason,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
        places=tuple(places or ()),
    )


def _topics(settings: ServiceSettings) -> list[str]:
    """Those messages may be put back to. Without a tasks file here, of other systems' none."""
    return topics_taking_back(tasks_if_any(settings.tasks).values(), settings.topic_prefix)


def _letters(settings: ServiceSettings) -> list[StoredLetter]:
    """All of the topic; a message goes out that cannot be read."""
    reader = RangeReader(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    try:
        topic = reader.whole(settings.topic(Topic.DEAD_LETTERS))
        letters, _ = letters_of(reader.read(topic))
    except (Retryable, Fatal) as error:
        fail(f"{error}; is TRACER_BOOTSTRAP_SERVERS right?")
    finally:
        reader.close()
    return letters


def _publisher(settings: ServiceSettings) -> Publisher:
    if settings.delivery == "at_least_once":
        return KafkaPublisher(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    try:
        return TransactionalPublisher(
            bootstrap=settings.bootstrap_servers,
            transactional_id=f"tracer-redrive-{settings.topic(Topic.DEAD_LETTERS)}",
            client_config=settings.kafka,
        )
    except Fatal as error:
        fail(
            f"{error}; on a broker without transactions set TRACER_DELIVERY=at_least_once, where a "
            "crash or failure amid a re-drive may put some back twice"
        )


def _tell(made: Plan, missing: list[str], *, dry_run: bool, json: bool) -> None:
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "redriven": [stored.place for stored in made.ready] if not dry_run else [],
                "would_redrive": [stored.place for stored in made.ready] if dry_run else [],
                "refused": [{"id": stored.place, "why": why} for stored, why in made.refused],
                "missing": missing,
            }
        )
        return
    targets = Counter(stored.letter.topic for stored in made.ready)
    where = ", ".join(f"{n} to {topic}" for topic, n in sorted(targets.items())) or "none"
    console.print(f"{'Would be put' if dry_run else 'Put'} back: {where}.")
    for why, n in Counter(why for _, why in made.refused).most_common():
        console.print(f"Not put back: {n}, {why}.")


def _redriven(stored: StoredLetter) -> str:
    if stored.redriven_by is not None:
        return f"by {stored.redriven_by or 'somebody'}"
    return f"{stored.redrives}× before" if stored.redrives else ""
