"""What a registry in Redis is asked, without a change to any key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from shared.contracts.report import MAX_REPORT_BYTES, Report
from shared.registry.base import (
    Active,
    Artifact,
    CorruptReport,
    HistoryEntry,
    Pointers,
    RegistryError,
    RegistryUnavailable,
)
from shared.registry.checks import check_start, report_of
from shared.registry.fit_note import FitNote, decode_note
from shared.registry.loading import load_artifact
from shared.registry.refusals import reaching
from shared.registry.replies import active_of, as_bytes, as_text, entries_of
from shared.registry.scripts import ACTIVE_FIELDS, Keys
from shared.registry.trust import Trust

# Pipelined commands are answered in one go, and a thousand routers may ask at the same moment: a
# trip costs the server well under a millisecond, so that the last of them is answered in time.
POINTERS_PER_TRIP = 200


class RedisReads:
    """The reading half of `RedisRegistry`."""

    def __init__(self, client: redis.Redis, trust: Trust) -> None:
        self._client = client
        self._trust = trust

    def active(self, task: str) -> Active:
        with reaching(self._client):
            return active_of(self._client.hmget(Keys.of(task).active, ACTIVE_FIELDS))

    def alpha(self, task: str) -> float | None:
        return self.active(task).alpha

    def pointers(self, tasks: Sequence[str]) -> Pointers:
        found: dict[str, Active | RegistryError] = {}
        for start in range(0, len(tasks), POINTERS_PER_TRIP):
            some = tasks[start : start + POINTERS_PER_TRIP]
            with reaching(self._client):
                pipeline = self._client.pipeline(transaction=False)
                for task in some:
                    pipeline.hmget(Keys.of(task).active, ACTIVE_FIELDS)
                answers = pipeline.execute(raise_on_error=False)
            found |= {
                task: self._pointer(answer) for task, answer in zip(some, answers, strict=True)
            }
        return found

    def load(self, task: str, version: str) -> Artifact:
        return load_artifact(self._client, task, version, self._trust)

    def versions(self, task: str) -> list[str]:
        with reaching(self._client):
            return [as_text(version) for version in self._client.lrange(Keys.of(task).order, 0, -1)]

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        if limit <= 0:
            return []
        with reaching(self._client):
            entries = self._client.lrange(Keys.of(task).history, 0, limit - 1)
        return entries_of(entries)

    def audits(self, task: str, version: str, start: int = 0) -> tuple[bool, ...]:
        check_start(start)
        with reaching(self._client):
            outcomes = self._client.getrange(Keys.of(task).outcomes_of(version), start, -1)
        return tuple(outcome == ord("1") for outcome in as_bytes(outcomes))

    def report(self, task: str, key: str) -> Report | None:
        keys = Keys.of(task)
        with reaching(self._client):
            if int(self._client.hstrlen(keys.reports, key)) > MAX_REPORT_BYTES:
                raise CorruptReport(f"report {key} of {task} is larger than any put")
            data = self._client.hget(keys.reports, key)
        return None if data is None else report_of(as_bytes(data), task, key)

    def reports(self, task: str) -> list[str]:
        keys = Keys.of(task)
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hkeys(keys.reports)
            pipeline.lrange(keys.unpublished, 0, -1)
            pipeline.lrange(keys.order, 0, -1)
            known, unpublished, order = pipeline.execute()
        there = {as_text(key) for key in known}
        return [key for key in map(as_text, (*unpublished, *order)) if key in there]

    def last_fit(self, task: str) -> FitNote | None:
        with reaching(self._client):
            found = self._client.get(Keys.last_fit_of(task))
        try:
            return None if found is None else decode_note(as_bytes(found))
        except ValueError:
            return None

    def _pointer(self, answer: Any) -> Active | RegistryError:
        """Raises RegistryUnavailable."""
        try:
            with reaching(self._client):
                if isinstance(answer, Exception):
                    raise answer
                return active_of(answer)
        except RegistryUnavailable:
            raise
        except RegistryError as error:
            return error
