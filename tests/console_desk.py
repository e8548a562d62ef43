"""A console in memory: the real application over doubles of the registry, counters and topics."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime

from starlette.testclient import TestClient
from starlette.types import ASGIApp

from services.console.access import Access
from services.console.announcements import Announcements
from services.console.context import Context
from services.console.explaining import NotExplained
from services.console.handlers import Sources
from services.console.letters import DeadLetters
from services.console.live import LiveFeed
from services.console.oidc import Provider
from services.console.recent import RecentRequests
from services.console.rendering import environment
from services.console.sessions import Cookies
from services.console.tallies import Tally
from services.console.web import make_app
from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.redriving import StoredLetter
from shared.clock import FakeClock
from shared.contracts.codec import encode
from shared.contracts.events import Event, ModelAnnouncement
from shared.contracts.tasks import Task
from shared.explain.explanation import Explanation
from shared.explain.wire import Asked
from shared.http.rate import RateLimiter
from shared.http.tokens import LOCAL, Tokens, read_tokens
from shared.registry.fleet import RouterBeat
from shared.registry.glances import RegistryGlances
from shared.registry.memory import MemoryRegistry
from tests.artifacts import make_artifact

AT = datetime(2026, 1, 5, tzinfo=UTC)
OPERATOR, READER, TENANT = "operator-0123456789", "reader-0123456789", "tenant-0123456789"
TOKENS = read_tokens(
    f'[{{"name": "maria", "token": "{OPERATOR}"}},'
    f' {{"name": "rosa", "token": "{READER}", "read_only": true}},'
    f' {{"name": "acme", "token": "{TENANT}", "tasks": ["support"]}}]',
    "TRACER_CONSOLE_TOKENS",
)


class Topic:
    """A topic in memory that a reader starts with from its beginning; `away`: no broker,
    `forbidden`: one that lets nobody read it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.away = False
        self.forbidden = False
        self.opened = 0
        self.closed = 0

    def add(self, *events: Event) -> None:
        for event in events:
            offset = len(self.messages)
            self.messages.append(Message("topic", 0, offset, None, encode(event)))

    def open(self) -> _Tail:
        self.opened += 1
        return _Tail(self)


class _Tail:
    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._next = 0

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        if self._topic.away:
            raise Retryable("no broker answers")
        if self._topic.forbidden:
            raise Fatal("not authorised")
        found = self._topic.messages[self._next : self._next + max_messages]
        self._next += len(found)
        if not found:
            threading.Event().wait(0.005)
        return found

    def caught_up(self) -> bool:
        return self._next == len(self._topic.messages)

    def close(self) -> None:
        self._topic.closed += 1


class MemoryTallies:
    """Counters in memory."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[date, dict[str, int]]] = {}

    def add(self, task: str, source: TopicPartition, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            day = self.counts.setdefault(task, {}).setdefault(tally.day, {})
            day[tally.field] = day.get(tally.field, 0) + tally.n

    def days(self, tasks: Sequence[str], limit: int) -> dict[str, dict[date, dict[str, int]]]:
        newest = {task: sorted(self.counts.get(task, {}))[-limit:] for task in tasks}
        return {task: {day: self.counts[task][day] for day in newest[task]} for task in tasks}

    def close(self) -> None: ...


class MemoryPost:
    """Puts letters back into a list, and their markers among the letters."""

    topics = ("requests",)
    transactions = True

    def __init__(self, dead: DeadLetters) -> None:
        self._dead = dead
        self.sent: list[Record] = []

    def publisher(self) -> MemoryPost:
        return self

    def letters(self, places: Collection[str]) -> list[StoredLetter]:
        return [stored for stored in self._dead.of(LOCAL, ()) if stored.place in places]

    def publish(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.topic != "dead-letters":
                self.sent.append(record)
                continue
            offset = len(self._dead._messages)
            self._dead.take(
                Message(record.topic, 0, offset, record.key, record.value, record.headers)
            )

    def close(self) -> None: ...


class MemoryFleet:
    def __init__(self) -> None:
        self.beats: list[RouterBeat] = []

    def beat(self, router: RouterBeat) -> None:
        self.beats.append(router)

    def leave(self, instance: str) -> None: ...

    def routers(self) -> list[RouterBeat]:
        return self.beats

    def close(self) -> None: ...


class MemoryExplaining:
    """Answers every question with what a test put here, and remembers the questions."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Explanation | Exception = NotExplained("there is no model here")

    def ask(self, asked: Asked) -> Explanation:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None: ...


class Desk:
    """Two tasks; `support` has two versions, the second one active."""

    def __init__(
        self,
        *,
        tokens: Tokens = TOKENS,
        provider: Provider | None = None,
        read_only: bool = False,
        rate: float = 1_000.0,
    ) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry()
        self.tallies = MemoryTallies()
        self.models, self.decisions, self.requests = Topic(), Topic(), Topic()
        self.dead_letters = DeadLetters(trouble=None)
        self.post = MemoryPost(self.dead_letters)
        self.fleet = MemoryFleet()
        self.announced: list[ModelAnnouncement] = []
        self.broker_away = False
        self.versions = []
        for text in ("a", "b"):
            artifact = make_artifact("support", text=text)
            fence = self.registry.acquire("support")
            self.registry.publish(artifact, fence=fence, at=AT, reason="certified")
            self.versions.append(artifact.version)
        self.explaining = MemoryExplaining()
        tasks = {
            "support": Task(name="support"),
            "intents": Task(name="intents", previews=False),
        }
        self.cookies = Cookies("s" * 40, seconds=3600, secure=False)
        self.context = Context(
            sources=Sources(
                tasks=tasks,
                registry=self.registry,
                glances=RegistryGlances(self.registry),
                tallies=self.tallies,
                announcements=Announcements(trouble=None),
            ),
            access=Access(
                tokens=tokens,
                cookies=self.cookies,
                provider=provider,
                open_to_this_machine=not tokens and provider is None,
                read_only=read_only,
                known=RateLimiter(self.clock, rate, max(1.0, 2 * rate)),
                strangers=RateLimiter(self.clock, 1.0, 20.0),
            ),
            announce=self.announce,
            feed=LiveFeed(
                self.decisions.open,
                self.requests.open,
                RecentRequests(name for name, task in tasks.items() if task.previews),
                max_watchers=2,
            ),
            explaining=self.explaining,
            dead_letters=self.dead_letters,
            post=self.post,
            fleet=self.fleet,
            clock=self.clock,
            templates=environment(),
            stop=threading.Event(),
        )
        self.app: ASGIApp = make_app(self.context)

    def announce(self, announcement: ModelAnnouncement) -> None:
        if self.broker_away:
            raise Retryable("the broker is away")
        self.announced.append(announcement)

    def client(self, token: str | None = None, *, base_url: str = "http://localhost") -> TestClient:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return TestClient(
            self.app, base_url=base_url, headers=headers, follow_redirects=False,
            raise_server_exceptions=False,
        )  # fmt: skip
