"""The console, wired: `build` picks the adapters, `Console.run` turns the loop."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal
from zoneinfo import ZoneInfo

from services.console.access import Access
from services.console.announcements import Announcements
from services.console.config import ConsoleSettings
from services.console.context import Context
from services.console.explaining import ExplainingProcess
from services.console.following import Reading, follow
from services.console.handlers import Sources
from services.console.letters import DeadLetters
from services.console.live import LiveFeed
from services.console.oidc import Provider
from services.console.post import KafkaPost
from services.console.recent import RecentRequests
from services.console.rendering import environment
from services.console.sessions import Cookies
from services.console.tallies import Counting, Topics
from services.console.tally_store import RedisTallies
from services.console.web import make_app
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.bus.kafka_tail import Tail
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.events import ModelAnnouncement
from shared.contracts.tasks import load_tasks
from shared.contracts.topics import Topic
from shared.http.rate import RateLimiter
from shared.redis_clients import client as redis_client
from shared.registry.fleet import connect_fleet
from shared.registry.glances import connect_glances
from shared.registry.redis import connect
from shared.registry.trust import Trust
from shared.telemetry.health import Health
from shared.web_server import WebServer

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
_STRANGERS_PER_SECOND, _STRANGERS_AT_ONCE = 1.0, 20.0


@dataclass
class Console:
    """The web server in a thread of its own, followers in others, the counting in this one."""

    context: Context
    counting: Counting
    server: WebServer
    health: Health
    followers: Mapping[str, Callable[[threading.Event], None]]

    @property
    def port(self) -> int:
        return self.server.port

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises Fatal when the counting consumer cannot go on."""
        followers = [
            threading.Thread(target=work, args=(self.context.stop,), name=name, daemon=True)
            for name, work in self.followers.items()
        ]
        for follower in followers:
            follower.start()
        self.server.start()
        self.health.ready()
        log.info("console open", extra={"port": self.port})
        try:
            self.counting.run(stop)
        finally:
            self.context.stop.set()
            for follower in followers:
                follower.join(_GRACE_SECONDS)

    def close(self) -> None:
        self.context.stop.set()
        self.server.close()
        self.counting.source.close()
        self.counting.store.close()
        self.context.explaining.close()
        self.context.fleet.close()
        self.context.sources.glances.close()
        self.context.sources.registry.close()


def build(settings: ConsoleSettings, *, clock: Clock, health: Health) -> Console:
    """Everything the console needs, from its settings."""
    tasks = load_tasks(settings.tasks)
    url = settings.redis_url.get_secret_value()
    trust = Trust(settings.trusted_keys)
    trust.warn_if_blind()
    registry, glances = connect(url, trust=trust), connect_glances(url, trust=trust)
    tallies = RedisTallies(redis_client(url, protocol=2, socket_timeout=5.0))
    recent = RecentRequests(name for name, task in tasks.items() if task.previews)
    context = Context(
        sources=Sources(
            tasks=tasks,
            registry=registry,
            glances=glances,
            tallies=tallies,
            announcements=Announcements(),
        ),
        access=_access(settings, clock),
        announce=partial(_announce, settings),
        feed=LiveFeed(
            _tail(settings, Topic.DECISIONS, "end"), _tail(settings, Topic.REQUESTS, "end"), recent
        ),
        explaining=ExplainingProcess(
            environment={"TRACER_ENCODER": str(settings.encoder), "TRACER_STORE": settings.store}
        ),
        dead_letters=DeadLetters(),
        post=KafkaPost(settings, tasks.values()),
        fleet=connect_fleet(url),
        clock=clock,
        templates=environment(),
        stop=threading.Event(),
    )
    server = WebServer(
        make_app(context),
        settings.console_host,
        settings.console_port,
        grace=_GRACE_SECONDS,
        name="console",
        fix="set TRACER_CONSOLE_PORT to another port",
    )
    topics = Topics(settings.topic(Topic.DECISIONS), settings.topic(Topic.TRACES))
    counting = Counting(
        source=KafkaSource(
            bootstrap=settings.bootstrap_servers,
            group=settings.group("console"),
            topics=[topics.decisions, topics.traces],
            client_config=settings.kafka,
        ),
        store=tallies,
        topics=topics,
        zones={name: ZoneInfo(task.timezone) for name, task in tasks.items()},
        clock=clock,
        health=health,
    )
    return Console(context, counting, server, health, _followers(settings, context))


def _followers(
    settings: ConsoleSettings, context: Context
) -> dict[str, Callable[[threading.Event], None]]:
    """What each thread beside the web server's does, by its name."""
    announcements, letters = context.sources.announcements, context.dead_letters
    models = _tail(settings, Topic.MODELS, "beginning")
    dead = _tail(settings, Topic.DEAD_LETTERS, "beginning")
    return {
        "announcements": partial(follow, announcements, models, "the announcements on `models`"),
        "dead-letters": partial(follow, letters, dead, "the dead letters"),
        "live": context.feed.run,
    }


def _access(settings: ConsoleSettings, clock: Clock) -> Access:
    secret = settings.console_secret
    return Access(
        tokens=settings.tokens(),
        cookies=Cookies(
            secret.get_secret_value() if secret else secrets.token_urlsafe(32),
            seconds=settings.session_hours * 3600,
            secure=settings.secure_cookies,
        ),
        provider=_provider(settings, clock),
        open_to_this_machine=settings.open_to_this_machine,
        read_only=settings.console_read_only,
        known=RateLimiter(clock, settings.console_rate, max(1.0, 4 * settings.console_rate)),
        strangers=RateLimiter(clock, _STRANGERS_PER_SECOND, _STRANGERS_AT_ONCE),
    )


def _provider(settings: ConsoleSettings, clock: Clock) -> Provider | None:
    if settings.oidc_issuer is None:
        return None
    secret = settings.oidc_client_secret
    return Provider(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id or "",
        client_secret=secret.get_secret_value() if secret else "",
        redirect_uri=f"{(settings.console_url or '').rstrip('/')}/sign-in/answer",
        scope=settings.oidc_scope,
        tasks_claim=settings.oidc_tasks_claim,
        role_claim=settings.oidc_role_claim,
        clock=clock,
    )


def _tail(
    settings: ConsoleSettings, topic: Topic, start: Literal["beginning", "end"]
) -> Callable[[], Reading]:
    return partial(
        Tail,
        bootstrap=settings.bootstrap_servers,
        topics=[settings.topic(topic)],
        start=start,
        client_config=settings.kafka,
    )


def _announce(settings: ConsoleSettings, announcement: ModelAnnouncement) -> None:
    """By hand is rare: a producer each time, so that none idles for days."""
    key = announcement.task.encode()
    record = Record(settings.topic(Topic.MODELS), key, encode(announcement))
    publisher = KafkaPublisher(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    with closing(publisher):
        publisher.publish([record])
