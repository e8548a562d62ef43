"""Many tasks at a glance, without a model's bytes: what a page or a table shows.

A `Registry` answers one question about one task at a time, and `load` brings the blobs. Here all
tasks cost three round trips together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from shared.contracts.manifest import Manifest
from shared.redis_clients import client as redis_client
from shared.registry.artifact import verified_manifest
from shared.registry.base import (
    MAX_MANIFEST_BYTES,
    Active,
    CorruptArtifact,
    HistoryEntry,
    Registry,
    RegistryError,
    UnknownVersion,
)
from shared.registry.refusals import reaching
from shared.registry.replies import active_of, as_bytes, as_text, entries_of
from shared.registry.scripts import ACTIVE_FIELDS, Keys
from shared.registry.signatures import MAX_SIGNATURE_BYTES
from shared.registry.trust import Trust


@dataclass(frozen=True, slots=True)
class Glance:
    """One task. `versions`: stored ones, oldest first. `manifest`: the active version's, None
    without one or where `damage` says why it cannot be read. `newest`: of the history."""

    task: str
    active: Active
    versions: tuple[str, ...] = ()
    newest: HistoryEntry | None = None
    manifest: Manifest | None = None
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class Audits:
    """Of one version: `agree` of `n` agree with the teacher."""

    agree: int
    n: int


# Of one version: its manifest, or why it cannot be read.
Manifests = Mapping[str, Manifest | RegistryError]


class Glances(Protocol):
    """Every method raises RegistryUnavailable when the store is away."""

    def glance(self, tasks: Sequence[str]) -> list[Glance]:
        """In the order of `tasks`."""
        ...

    def manifests(self, task: str, versions: Sequence[str]) -> Manifests:
        """Those of `versions` that are stored, by version."""
        ...

    def audits(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Audits]:
        """By (task, version)."""
        ...

    def close(self) -> None: ...


class RegistryGlances:
    """The same over any registry, one question at a time; `RedisGlances` must answer alike."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def glance(self, tasks: Sequence[str]) -> list[Glance]:
        return [self._one(task) for task in tasks]

    def manifests(self, task: str, versions: Sequence[str]) -> Manifests:
        found: dict[str, Manifest | RegistryError] = {}
        for version in versions:
            try:
                found[version] = self._registry.load(task, version).manifest
            except UnknownVersion:
                continue
            except CorruptArtifact as error:
                found[version] = error
        return found

    def audits(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Audits]:
        outcomes = {key: self._registry.audits(*key) for key in wanted}
        return {key: Audits(sum(found), len(found)) for key, found in outcomes.items()}

    def close(self) -> None:
        """The registry is the caller's."""

    def _one(self, task: str) -> Glance:
        active = self._registry.active(task)
        wanted = [active.version] if active.version else []
        return _glance(
            task,
            active,
            self._registry.versions(task),
            next(iter(self._registry.history(task, 1)), None),
            self.manifests(task, wanted),
        )


class RedisGlances:
    """Made by `connect_glances`; safe to share between threads."""

    def __init__(self, client: redis.Redis, trust: Trust) -> None:
        self._client = client
        self._trust = trust

    def glance(self, tasks: Sequence[str]) -> list[Glance]:
        heads: list[Any] = []
        for task in tasks:
            keys = Keys.of(task)
            heads += [
                ("hmget", keys.active, ACTIVE_FIELDS),
                ("lrange", keys.order, 0, -1),
                ("lindex", keys.history, 0),
            ]
        answers = self._pipelined(heads)
        active = [active_of(answer) for answer in answers[0::3]]
        served = [(t, a.version) for t, a in zip(tasks, active, strict=True) if a.version]
        manifests = self._fetch(served)
        return [
            _glance(
                task,
                pointer,
                [as_text(version) for version in versions],
                next(iter(entries_of([newest] if newest else [])), None),
                {v: found for (t, v), found in manifests.items() if t == task},
            )
            for task, pointer, versions, newest in zip(
                tasks, active, answers[1::3], answers[2::3], strict=True
            )
        ]

    def manifests(self, task: str, versions: Sequence[str]) -> Manifests:
        found = self._fetch([(task, version) for version in versions])
        return {version: manifest for (_, version), manifest in found.items()}

    def audits(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Audits]:
        commands: list[Any] = []
        for task, version in wanted:
            outcomes = Keys.of(task).outcomes_of(version)
            commands += [("strlen", outcomes), ("bitcount", outcomes)]
        answers = self._pipelined(commands)
        # The server counts: of the bits of '0' two are set, of those of '1' three.
        return {
            key: Audits(int(bits) - 2 * int(n), int(n))
            for key, n, bits in zip(wanted, answers[0::2], answers[1::2], strict=True)
        }

    def close(self) -> None:
        self._client.close()

    def _fetch(
        self, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Manifest | RegistryError]:
        """Manifests by task and version; those that are not stored are left out."""
        sizes = self._pipelined(
            ("hstrlen", getattr(Keys.of(task), kind), version)
            for task, version in wanted
            for kind in ("manifests", "signatures")
        )
        found: dict[tuple[str, str], Manifest | RegistryError] = {}
        fitting: list[tuple[str, str]] = []
        for key, manifest, signature in zip(wanted, sizes[0::2], sizes[1::2], strict=True):
            if int(manifest) > MAX_MANIFEST_BYTES or int(signature) > MAX_SIGNATURE_BYTES:
                found[key] = CorruptArtifact(f"the manifest of {key[1]} is larger than any is")
            elif int(manifest):
                fitting.append(key)
        answers = self._pipelined(
            ("hget", getattr(Keys.of(task), kind), version)
            for task, version in fitting
            for kind in ("manifests", "signatures")
        )
        for (task, version), data, signed in zip(
            fitting, answers[0::2], answers[1::2], strict=True
        ):
            if data is not None:  # deleted meanwhile
                found[task, version] = self._read(task, version, data, signed)
        return found

    def _read(self, task: str, version: str, data: Any, signed: Any) -> Manifest | RegistryError:
        try:
            self._trust.check(as_bytes(data), as_bytes(signed or b""), version)
            manifest = verified_manifest(as_bytes(data), version)
        except CorruptArtifact as error:
            return error
        if manifest.task != task:
            return CorruptArtifact(f"{version} was made for task {manifest.task}, not {task}")
        return manifest

    def _pipelined(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            for name, *arguments in commands:
                getattr(pipeline, name)(*arguments)
            answers: list[Any] = pipeline.execute()
        return answers


def connect_glances(
    url: str, *, trust: Trust | None = None, socket_timeout: float = 5.0
) -> RedisGlances:
    """At `url`, as for `shared.registry.redis.connect`; connects when first used.

    Raises ValueError, which never shows the URL's password, when `url` is not one.
    """
    return RedisGlances(
        redis_client(
            url,
            protocol=2,
            socket_timeout=socket_timeout,
            socket_connect_timeout=socket_timeout,
            socket_keepalive=True,
            health_check_interval=15,
        ),
        trust or Trust(),
    )


def _glance(
    task: str,
    active: Active,
    versions: Sequence[str],
    newest: HistoryEntry | None,
    manifests: Manifests,
) -> Glance:
    found = manifests.get(active.version) if active.version else None
    damage = None
    if isinstance(found, RegistryError):
        found, damage = None, str(found)
    elif active.version and found is None:
        damage = f"{task} has no version {active.version}"
    return Glance(task, active, tuple(versions), newest, found, damage)
