"""What the contract tests share: schemas, their structs, examples, and a strict validator."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from shared.contracts.dead_letters import DeadLetter
from shared.contracts.events import (
    Decision,
    Deferral,
    Event,
    ModelAnnouncement,
    RawTrace,
    Request,
    Trace,
)
from shared.contracts.topics import Topic, load_topics, schemas_folder

SCHEMAS = schemas_folder()

KINDS: dict[Topic, type[Event]] = {
    Topic.TRACES_RAW: RawTrace,
    Topic.TRACES: Trace,
    Topic.REQUESTS: Request,
    Topic.DECISIONS: Decision,
    Topic.DEFERRED: Deferral,
    Topic.MODELS: ModelAnnouncement,
    Topic.DEAD_LETTERS: DeadLetter,
}

_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_a_real_moment(value: object) -> bool:
    """The library checks date-time only with another package; the calendar is checked here."""
    return not isinstance(value, str) or datetime.fromisoformat(value.upper()).tzinfo is not None


@cache
def schema_of(topic: Topic) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / load_topics()[topic].event).read_bytes())
    return schema


@cache
def validator_of(topic: Topic) -> Draft202012Validator:
    return Draft202012Validator(schema_of(topic), format_checker=_formats)


def example_files(topic: Topic) -> list[Path]:
    """The valid examples of a topic; those in `invalid/` are not among them."""
    return sorted((SCHEMAS / load_topics()[topic].examples).glob("*.json"))


def invalid_files(topic: Topic) -> list[Path]:
    return sorted((SCHEMAS / load_topics()[topic].examples / "invalid").glob("*.json"))


def example(topic: Topic, name: str) -> dict[str, Any]:
    path = SCHEMAS / load_topics()[topic].examples / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document
