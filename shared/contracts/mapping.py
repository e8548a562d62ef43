"""How a task finds its traces in the logs of other systems: part of the tasks file.

Paths are JSONPath (RFC 9535) over one call as every source shows it, see `shared.sources.base`.
Their syntax is checked where they are compiled, because routers read the tasks file without the
library for it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Path = Annotated[str, Meta(min_length=1, max_length=1000, description="A JSONPath.")]
Pattern = Annotated[str, Meta(min_length=1, max_length=1000)]
# Not tuple[Path, Path]: with that in a union msgspec 0.22 crashes when garbage is collected.
Pair = Annotated[tuple[Path, ...], Meta(min_length=2, max_length=2)]
TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}\Z")]


class Format(StrEnum):
    """What a record or a line of a file holds."""

    OTLP_PROTO = "otlp_proto"
    OTLP_JSON = "otlp_json"
    LITELLM = "litellm"
    OPENAI = "openai"
    OPENAI_BATCH = "openai_batch"
    LANGFUSE = "langfuse"
    JSONL = "jsonl"
    CSV = "csv"
    PEER = "peer"


# A line of these means nothing without the rest of its file.
FILES_ONLY = frozenset({Format.CSV, Format.OPENAI_BATCH})
OTLP = frozenset({Format.OTLP_PROTO, Format.OTLP_JSON})


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds when a value at `path` equals `equals`, or `matches` (a regular expression) is found
    in it; with neither, when there is a value at all."""

    path: Path
    equals: str | bool | int | float | None = None
    matches: Pattern | None = None

    def __post_init__(self) -> None:
        if self.equals is not None and self.matches is not None:
            raise ValueError("a condition has `equals` or `matches`, not both")
        _check_pattern(self.matches, "matches")


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the label is read from the answer.

    `exact`: the answer is the label, but for quotes, emphasis, a lead such as `Label:` or a full
    stop. `json`: the answer is JSON, fenced or not, and the label is at `field`. `regex`: the
    label is the group `label` of `pattern`, or its first group; of several matches the last.
    """

    read: Literal["exact", "json", "regex"] = "exact"
    field: Path = "$.label"
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        if (self.read == "regex") != (self.pattern is not None):
            raise ValueError("`pattern` belongs to `read: regex`, and that needs it")
        if self.pattern is not None:
            _check_pattern(self.pattern, "pattern")
            if not re.compile(self.pattern).groups:
                raise ValueError("pattern needs a group for the label: (?P<label>...)")


class SourceMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way in which a task's calls are logged.

    `topic` is the Kafka topic they come on (its full name, no prefix is added); without one the
    mapping serves `tracerctl`, and for OTLP formats ingest's own door. A call is the task's when
    every condition of `where` holds; it is refused, with a dead letter, when one of `refuse` does.
    `input` is a path, a template with paths in double braces, or two of either for a pair. Where
    a path finds several texts, `pick` says which one to take, or to join them by new lines.
    `input_pattern` cuts the text out of a prompt: its group `input`, or its first one.
    `answer` is where the model's answer is; `human_label` where a human's label is, if any.
    `metadata` maps names to paths whose values the trace carries on.
    """

    format: Format
    topic: TopicName | None = None
    where: tuple[Condition, ...] = ()
    refuse: tuple[Condition, ...] = ()
    input: Path | Pair = "$.input"
    pick: Literal["first", "last", "only", "join"] = "last"
    input_pattern: Pattern | None = None
    answer: Path = "$.output"
    label: LabelRule = LabelRule()
    human_label: Path | None = None
    metadata: dict[str, Path] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.topic is not None and self.format in FILES_ONLY:
            raise ValueError(f"format {self.format.value} is for files: leave `topic` out")
        if self.input_pattern is not None:
            _check_pattern(self.input_pattern, "input_pattern")
            if not re.compile(self.input_pattern).groups:
                raise ValueError("input_pattern needs a group for the text: (?P<input>...)")


def _check_pattern(pattern: str | None, name: str) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{name} is not a regular expression: {error}") from None
