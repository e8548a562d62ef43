"""The trainer, wired: `build` picks the adapters, `Trainer.run` turns the loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from zoneinfo import ZoneInfo

from services.trainer.alpha import AlphaWatch
from services.trainer.config import TrainerSettings
from services.trainer.examine import ExaminerPlan
from services.trainer.fit_process import FitProcess
from services.trainer.handlers import Collector
from services.trainer.monitor import Monitor
from services.trainer.pipeline import Announce, Refit
from services.trainer.worker import RefitWorker
from shared.bus.base import Publisher, Record, Source, TopicPartition
from shared.bus.errors import Retryable
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.bus.rewinding import rewind
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.events import ModelAnnouncement
from shared.contracts.tasks import Task, load_tasks
from shared.contracts.topics import Topic
from shared.core.window import WindowBook, WindowKey
from shared.encoder.artifact import load_encoder_info
from shared.keeping import Keeper
from shared.redaction.load import check_redactors
from shared.registry.base import Registry, RegistryError
from shared.registry.redis import RedisRegistry, connect
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from shared.store.saved import SavedFiles
from shared.telemetry import metrics
from shared.telemetry.health import Health
from shared.telemetry.tracing import spans

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
RETRY_SECONDS = 1.0
# A turn that took longer was a pause of ours, not silence of a partition.
PAUSE_SECONDS = 1.5


@dataclass
class Trainer:
    """Polls traces, closes windows and hands refits to the worker."""

    source: Source
    publisher: Publisher
    collector: Collector
    monitor: Monitor
    worker: RefitWorker
    fits: FitProcess
    health: Health
    clock: Clock
    topic: str
    max_batch: int
    alpha: AlphaWatch
    keeper: Keeper | None = None  # a registry in memory is not kept
    _committed: dict[TopicPartition, int] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises Fatal when the consumer cannot go on."""
        self.health.ready()
        threading.Thread(target=self.alpha.follow, args=(stop,), name="alpha", daemon=True).start()
        if self.keeper is not None:
            keep = self.keeper.follow
            threading.Thread(target=keep, args=(stop,), name="keeper", daemon=True).start()
        turned = self.clock.monotonic()
        while not stop.is_set():
            self.health.beat()
            if self.clock.monotonic() - turned > PAUSE_SECONDS:
                self.collector.windows.wake(self.clock.monotonic())
            turned = self.clock.monotonic()
            try:
                self.turn()
            except Retryable as error:
                self._wait(error)
                self.collector.windows.wake(self.clock.monotonic())
            except OSError as error:  # one window is not stored: all else goes on, silence counts
                self._wait(error)
                turned = self.clock.monotonic()
            else:
                self.health.ready()

    def turn(self) -> None:
        """One poll and what follows from it. Raises OSError where a window could not be stored,
        after everything else."""
        messages = self.source.poll(self.max_batch, POLL_SECONDS)
        assigned = [p.partition for p in self.source.assigned()]
        with spans(messages) as followed:
            self.collector.add(followed, assigned)
        if self.collector.rejected:
            self.publisher.publish(self.collector.rejected)
            self.collector.rejected.clear()
        self._settle()
        try:
            for key in self.collector.close_due():
                self.worker.submit(key)
        finally:  # a window that is not stored holds its own offsets back, and no others
            self._commit()

    def _commit(self) -> None:
        offsets = self.collector.committable(self.topic)
        if offsets != self._committed:
            self.source.commit(offsets)
        self._committed = offsets

    def _wait(self, error: Exception) -> None:
        metrics.RETRIES.labels("trainer").inc()
        log.warning("will be tried again: %s", error)
        self.health.not_ready(str(error))
        self.clock.sleep(RETRY_SECONDS)

    def _settle(self) -> None:
        """Act on audits; with the registry away they wait, and traces go on being collected."""
        try:
            self.monitor.settle()
        except RegistryError as error:
            metrics.RETRIES.labels("trainer").inc()
            log.warning("audits wait for the registry: %s", error)


def build(settings: TrainerSettings, *, clock: Clock, health: Health) -> Trainer:
    """Everything the trainer needs, from its settings."""
    tasks = load_tasks(settings.tasks)
    check_redactors(tasks.values())
    store = WindowStore(settings.store)
    publisher = KafkaPublisher(bootstrap=settings.bootstrap_servers, client_config=settings.kafka)
    announce = partial(_announce, publisher, settings.topic(Topic.MODELS))
    registry = _registry(settings)
    monitor = Monitor(tasks=tasks, registry=registry, announce=announce, clock=clock)
    fits = _fits(settings)
    keeper = Keeper(
        tasks=tuple(tasks),
        files=SavedFiles(settings.store),
        registry=registry.saver(),
        load=registry.load,
        announce=announce,
        clock=clock,
    )
    worker = _worker(settings, tasks, store, registry, announce, fits, keeper, clock)
    windows = _windows(settings, tasks)
    resume(tasks, store, windows, worker)
    if not any(store.days(task) for task in tasks):
        start_over(settings, clock)
    return Trainer(
        source=_source(settings),
        publisher=publisher,
        collector=_collector(settings, tasks, store, windows, monitor, clock),
        monitor=monitor,
        worker=worker,
        fits=fits,
        health=health,
        clock=clock,
        topic=settings.topic(Topic.TRACES),
        max_batch=settings.max_batch,
        alpha=AlphaWatch(tasks, registry, store, worker.submit),
        keeper=keeper,
    )


def _registry(settings: TrainerSettings) -> RedisRegistry:
    trust = settings.trust()
    trust.warn_if_blind()
    return connect(
        settings.redis_url.get_secret_value(), keep_versions=settings.keep_versions, trust=trust
    )


def _fits(settings: TrainerSettings) -> FitProcess:
    plan = ExaminerPlan(
        store=settings.store,
        encoder=settings.encoder,
        threads=settings.encoder_threads,
        cache=settings.cache,
        jobs=settings.fit_jobs,
        cluster=settings.cluster(),
    )
    return FitProcess(plan.make, log_level=settings.log_level)


def _worker(
    settings: TrainerSettings,
    tasks: dict[str, Task],
    store: WindowStore,
    registry: Registry,
    announce: Announce,
    fits: FitProcess,
    keeper: Keeper,
    clock: Clock,
) -> RefitWorker:
    refit = Refit(
        tasks=tasks,
        windows=store,
        encoder=load_encoder_info(settings.encoder).digest,
        examine=fits,
        registry=registry,
        announce=announce,
        clock=clock,
    )
    return RefitWorker(partial(refit_kept, keeper, refit), clock=clock, failed=refit.give_up)


def _windows(settings: TrainerSettings, tasks: Mapping[str, Task]) -> WindowBook:
    return WindowBook(
        lateness=timedelta(seconds=settings.lateness),
        idle=timedelta(seconds=settings.idle),
        partition_idle=timedelta(seconds=settings.partition_idle),
        zones={name: ZoneInfo(task.timezone) for name, task in tasks.items()},
    )


def _source(settings: TrainerSettings) -> KafkaSource:
    return KafkaSource(
        bootstrap=settings.bootstrap_servers,
        group=settings.group("trainer"),
        topics=[settings.topic(Topic.TRACES)],
        client_config=settings.kafka,
    )


def _collector(
    settings: TrainerSettings,
    tasks: Mapping[str, Task],
    store: WindowStore,
    windows: WindowBook,
    monitor: Monitor,
    clock: Clock,
) -> Collector:
    reject = rejecting("trainer", settings.topic(Topic.DEAD_LETTERS), clock)
    return Collector(
        tasks=tasks,
        store=store,
        windows=windows,
        clock=clock,
        dead_letter=reject,
        accepted=reject.accepted,
        watch=monitor.see,
    )


def refit_kept(keeper: Keeper, refit: Refit, key: WindowKey) -> None:
    """Never into a registry that has lost the task: its fence would begin again."""
    keeper.look(key.task)
    refit(key)


def start_over(settings: TrainerSettings, clock: Clock) -> None:
    """Without a window on disk, read again all the traces that Kafka has kept: offsets are
    committed once their windows are stored, so a store without any has been lost, or is new."""
    group, topic = settings.group("trainer"), settings.topic(Topic.TRACES)
    if rewind(settings.bootstrap_servers, group, topic, clock=clock, client_config=settings.kafka):
        log.warning("the store is empty: reading %s from the beginning", topic)


def resume(
    tasks: dict[str, Task], store: WindowStore, windows: WindowBook, worker: RefitWorker
) -> None:
    """After a restart: know the closed windows, and refit after the newest, if no verdict has
    followed it. Older ones without a verdict are part of that refit's horizon."""
    for task in tasks:
        metrics.FITS.labels(task, "failed")  # from 0, or alerts would not see the first
        days = store.days(task)
        windows.restore(task, days)
        if days and store.verdict(task, days[-1]) is None:
            worker.submit(WindowKey(task, days[-1]))


def _announce(publisher: Publisher, topic: str, announcement: ModelAnnouncement) -> None:
    publisher.publish([Record(topic, announcement.task.encode(), encode(announcement))])
