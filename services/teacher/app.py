"""The teacher's composition root."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.teacher.answers import EndpointRefuses, PassingFault, Teaches
from services.teacher.budget import Ledger, MemoryLedger, Metered
from services.teacher.config import TeacherSettings
from services.teacher.costs import check_budgets, load_prices
from services.teacher.handlers import SERVICE, Rules, teach
from services.teacher.panel import Limits, Panel
from services.teacher.providers import teachers
from services.teacher.retries import Policy
from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Fatal
from shared.bus.kafka import open_pipe
from shared.bus.runner import run_pipe
from shared.clock import Clock
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import taxonomies
from shared.contracts.topics import Topic
from shared.registry.ledger import open_ledger
from shared.rejecting import Rejecting, rejecting
from shared.telemetry.health import Health
from shared.telemetry.metrics import CONSUMER_LAG, RETRIES
from shared.telemetry.tracing import traced

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Teacher:
    """The parts of a running teacher."""

    settings: TeacherSettings
    client: Teaches
    panel: Panel
    rules: Rules
    reject: Rejecting
    pipe: Pipe
    health: Health
    clock: Clock
    ledger: Ledger | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set, then to the end of the batch in hand. Raises Fatal."""
        if not self._wait_for_endpoint(stop):
            return
        run_pipe(
            self.pipe,
            traced(self._handle),
            stop=stop,
            health=self.health,
            clock=self.clock,
            max_batch=self.settings.teacher_max_batch,
            max_wait=self.settings.teacher_max_wait_seconds,
            on_retry=lambda _: RETRIES.labels(service=SERVICE).inc(),
            on_lag=CONSUMER_LAG.labels(service=SERVICE).set,
        )

    def close(self) -> None:
        self.panel.close()
        self.pipe.close()
        self.client.close()
        if self.ledger is not None:
            self.ledger.close()

    def _handle(self, messages: Sequence[Message]) -> list[Record]:
        return teach(
            messages,
            rules=self.rules,
            ask_all=self.panel.ask_all,
            reject=self.reject,
            clock=self.clock,
        )

    def _wait_for_endpoint(self, stop: threading.Event) -> bool:
        """Nothing is read before somebody can answer it. False when told to stop meanwhile."""
        said = ""
        while not stop.is_set():
            self.health.beat()
            try:
                self.client.probe(timeout=self.settings.teacher_timeout_seconds)
            except (PassingFault, EndpointRefuses) as error:
                self.health.not_ready(str(error))
                if str(error) != said:
                    log.warning("waiting for the teacher's endpoint: %s", error)
                    said = str(error)
                stop.wait(_PROBE_SECONDS)
            else:
                return True
        return False


def build(
    settings: TeacherSettings,
    tasks: Mapping[str, Task],
    *,
    stop: threading.Event,
    clock: Clock,
    health: Health,
) -> Teacher:
    """Wire the teacher. Raises Fatal when the broker won't do, or a task's key is not there."""
    prices = load_prices(settings.teacher_prices, settings.teacher_model)
    mine = _mine(settings, tasks)
    check_budgets(mine, prices)
    client = teachers(settings, mine, clock=clock)
    ledger = _ledger(settings)
    panel = Panel(
        Metered(client, ledger=ledger, prices=prices, clock=clock),
        policy=Policy(settings.teacher_max_attempts),
        limits=Limits(
            timeout=settings.teacher_timeout_seconds,
            batch=settings.teacher_batch_seconds,
            patience=settings.teacher_patience_seconds,
            concurrency=settings.teacher_concurrency,
        ),
        clock=clock,
        wait=stop.wait,
        on_answer=health.beat,
    )
    rules = Rules(
        tasks=tasks,
        taxonomies=taxonomies(tasks),
        deferred_topic=settings.topic(Topic.DEFERRED),
        decisions_topic=settings.topic(Topic.DECISIONS),
        raw_topic=settings.topic(Topic.TRACES_RAW),
        only=settings.teacher_tasks,
        never=settings.teacher_not_tasks,
    )
    reject = rejecting(SERVICE, settings.topic(Topic.DEAD_LETTERS), clock)
    pipe = open_pipe(
        bootstrap=settings.bootstrap_servers,
        group=settings.group(SERVICE),
        topics=[rules.deferred_topic],
        delivery=settings.delivery,
        transactional_id=f"{settings.group(SERVICE)}-{settings.instance}",
        client_config=settings.kafka,
    )
    return Teacher(settings, client, panel, rules, reject, pipe, health, clock, ledger)


def _mine(settings: TeacherSettings, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks of this group of teachers. Raises Fatal for names that are no task's."""
    named = (settings.teacher_tasks or frozenset()) | settings.teacher_not_tasks
    if unknown := sorted(named - tasks.keys()):
        raise Fatal(
            f"TRACER_TEACHER_TASKS and TRACER_TEACHER_NOT_TASKS name {', '.join(unknown)}, which "
            f"{settings.tasks} does not have"
        )
    only = tasks.keys() if settings.teacher_tasks is None else settings.teacher_tasks
    return {
        name: task
        for name, task in tasks.items()
        if name in only and name not in settings.teacher_not_tasks
    }


def _ledger(settings: TeacherSettings) -> Ledger:
    if settings.teacher_budget_store == "memory":
        return MemoryLedger()
    return open_ledger(settings.redis_url.get_secret_value(), settings.topic_prefix)
