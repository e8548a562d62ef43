"""The topics: `schemas/topics/*.yaml` as reviewed data, and their names for the code."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]*)([smhd])")
FOREVER_MS = -1

# Who reads and writes topics: our services, and the user's own systems.
Party = Literal["application", "ingest", "trainer", "router", "teacher", "console", "tracerctl"]
Cleanup = Literal["delete", "compact"]
Positive = Annotated[int, Meta(ge=1)]


class Topic(StrEnum):
    """Every topic, without the deployment's prefix."""

    TRACES_RAW = "traces.raw"
    TRACES = "traces"
    REQUESTS = "requests"
    DECISIONS = "decisions"
    DEFERRED = "deferred"
    MODELS = "models"
    DEAD_LETTERS = "dead-letters"


class InvalidTopics(ValueError):
    """The topics folder cannot be used; the message names the file and the field."""


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One topic as `schemas/topics/<topic>.yaml` describes it.

    `event`, `examples`: paths below the schemas folder. `key`: path of the event's field whose
    UTF-8 is the record's key. `retention`: a number and s, m, h or d, or `forever`.
    `replication`: copies wanted in production. `max_message_bytes`: of one record.
    """

    topic: Topic
    description: Annotated[str, Meta(min_length=1)]
    event: Annotated[str, Meta(pattern=r"^events/[a-z-]+\.v[0-9]+\.schema\.json\Z")]
    examples: Annotated[str, Meta(pattern=r"^examples/[a-z.-]+/[0-9]+\Z")]
    key: Annotated[str, Meta(min_length=1)]
    producers: Annotated[tuple[Party, ...], Meta(min_length=1)]
    consumers: Annotated[tuple[Party, ...], Meta(min_length=1)]
    partitions: Annotated[int, Meta(ge=1, le=100_000)]  # librdkafka's limit
    replication: Positive
    retention: Annotated[str, Meta(pattern=r"^(forever|[1-9][0-9]*[smhd])\Z")]
    cleanup: Annotated[tuple[Cleanup, ...], Meta(min_length=1)]
    max_message_bytes: Positive

    @property
    def retention_ms(self) -> int:
        """Milliseconds a record is kept; -1 for ever."""
        match = _DURATION.fullmatch(self.retention)
        return int(match[1]) * _SECONDS[match[2]] * 1_000 if match else FOREVER_MS

    def settings(self) -> dict[str, str]:
        """The topic's settings as a broker takes them."""
        return {
            "cleanup.policy": ",".join(self.cleanup),
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
        }


def schemas_folder() -> Path:
    """The schemas folder: beside `shared` both in a checkout and in an installed wheel."""
    folder = Path(__file__).resolve().parents[2] / "schemas"
    if not (folder / "topics").is_dir():
        raise InvalidTopics(f"{folder}: no schemas here; this installation is incomplete")
    return folder


def load_topics(folder: Path | None = None) -> dict[Topic, TopicSpec]:
    """Read `<folder>/topics/*.yaml`, in the order of `Topic`. Raises InvalidTopics."""
    folder = schemas_folder() if folder is None else folder
    specs = {spec.topic: spec for spec in map(_load, sorted((folder / "topics").glob("*.yaml")))}
    missing = [topic.value for topic in Topic if topic not in specs]
    if missing:
        raise InvalidTopics(f"{folder / 'topics'}: no file for {', '.join(missing)}")
    return {topic: specs[topic] for topic in Topic}


def _load(path: Path) -> TopicSpec:
    try:
        spec = msgspec.yaml.decode(path.read_bytes(), type=TopicSpec)
    except msgspec.DecodeError as error:
        raise InvalidTopics(f"{path}: {error}") from error
    if path.stem != spec.topic:
        raise InvalidTopics(f"{path}: topic {spec.topic.value!r} belongs in {spec.topic}.yaml")
    return spec
