"""The events that cross topics, as msgspec structs.

`schemas/events/*.schema.json` is the source of truth; `tests/contract` holds these structs to it.
Readers ignore fields they do not know, so that an old reader accepts a newer writer; an absent
`v` means version 1 and an unknown one is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MAX_TEXT_CHARS = 32_768
# Ingest refuses a call that cost more: the sums of a day, and of its reports, must stay numbers.
MOST_DOLLARS = 1_000_000.0
# Nor has any counted more: the columns of a stored window are of 64 bits.
MOST_TOKENS = 2**53
# Rarer than that nothing is drawn. A trace weighs one over it, and would outweigh all the others.
LEAST_PROBABILITY = 1e-6

Id = Annotated[str, Meta(min_length=1, max_length=256)]
# Task names become Redis keys, folders and metric labels, so they are kept plain.
# \Z because Python's $ would also let a trailing newline through.
TaskName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
TextPair = Annotated[list[Text], Meta(min_length=2, max_length=2)]
Input = Text | TextPair
Label = Annotated[str, Meta(min_length=1, max_length=256)]
Timestamp = Annotated[datetime, Meta(tz=True)]
Probability = Annotated[float, Meta(gt=0, le=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


class Outcome(StrEnum):
    """Who answered: the surrogate (`handled`, `audited`) or the teacher (`deferred`)."""

    HANDLED = "handled"
    AUDITED = "audited"
    DEFERRED = "deferred"


# msgspec knows no subset of an enum, so Deferral checks it itself.
TeacherOutcome = Annotated[
    Outcome, Meta(extra_json_schema={"enum": [Outcome.AUDITED.value, Outcome.DEFERRED.value]})
]


class Reason(StrEnum):
    """Why the router decided as it did."""

    CERTIFIED = "certified"
    BELOW_THRESHOLD = "below_threshold"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    LABEL_FLOOR = "label_floor"
    NO_ACTIVE_VERSION = "no_active_version"
    PAUSED = "paused"
    TRIPPED = "tripped"
    INVALID_INPUT = "invalid_input"
    PROBATION = "probation"
    LABEL_REMOVED = "label_removed"
    ALPHA_RAISED = "alpha_raised"


class Source(StrEnum):
    """How a trace came to be observed."""

    LOG = "log"
    DEFERRED = "deferred"
    AUDITED = "audited"


class AnnouncementKind(StrEnum):
    """What became of a version. `SHADOW` and `CANARY` begin a trial, `PROMOTED` ends it with the
    version active, `WITHDRAWN` without. `ALPHA`: an operator asks for another α. `REJECTED`: a
    router would not serve it, and goes on with the one it had."""

    PUBLISHED = "published"
    REFUSED = "refused"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"
    KEPT = "kept"
    TRIPPED = "tripped"
    PROBATION = "probation"
    CLEARED = "cleared"
    PAUSED = "paused"
    RESUMED = "resumed"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTED = "promoted"
    WITHDRAWN = "withdrawn"
    REJECTED = "rejected"
    ALPHA = "alpha"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every event has: a version, absent meaning 1."""

    v: Literal[1] = 1


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    input: Count
    output: Count


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What a version said of a request, whether or not it was the answer.

    `handled`: it answered, or would have answered had it been asked to.
    """

    version: str
    label: Label
    handled: bool


class LabelledCall(Event, frozen=True, kw_only=True):
    """What a raw trace and a trace have in common.

    `label` is the human's label where one is known; the surrogate learns `teacher`.
    `drawn`: the request fell into the uniform audit sample, whether handled or deferred;
    `audit_share` is the share of handled requests being audited when the router decided.
    `version` was active when the router decided. `prompt` is a digest of the prompt the teacher
    was asked with (prompting.prompt_digest).
    """

    id: Id
    task: TaskName
    input: Input
    teacher: Label
    tokens: Tokens | None = None
    cost: Annotated[float, Meta(ge=0)] | None = None
    label: Label | None = None
    metadata: dict[str, Any] | None = None
    source: Source = Source.LOG
    observation_probability: Probability = 1.0
    deferral_reason: Reason | None = None
    opinions: list[Opinion] = msgspec.field(default_factory=list)
    drawn: bool = False
    audit_share: Share = 0.0
    version: str | None = None
    prompt: str | None = None


class RawTrace(LabelledCall, frozen=True, kw_only=True):
    """One LLM call as a user's system logs it (topic `traces.raw`)."""

    occurred_at: Timestamp | None = None
    model: str | None = None


class Trace(LabelledCall, frozen=True, kw_only=True):
    """One LLM call, validated, its label normalised to the task's taxonomy (topic `traces`)."""

    occurred_at: Timestamp
    teacher_model: str | None = None


class Request(Event, frozen=True, kw_only=True):
    """A text to classify (topic `requests`)."""

    id: Id
    task: TaskName
    input: Input
    occurred_at: Timestamp | None = None
    metadata: dict[str, Any] | None = None


class Decision(Event, frozen=True, kw_only=True):
    """The final answer to one request (topic `decisions`); exactly one per request id.

    `timings` are milliseconds by step. `label` is absent only when the teacher could not answer
    either; `error` then says why.
    """

    request_id: Id
    task: TaskName
    outcome: Outcome
    reason: Reason
    decided_at: Timestamp
    label: Label | None = None
    accept_score: float | None = None
    threshold: float | None = None
    version: str | None = None
    occurred_at: Timestamp | None = None
    teacher_model: str | None = None
    error: str | None = None
    timings: dict[str, float] = msgspec.field(default_factory=dict)
    metadata: dict[str, Any] | None = None


class Deferral(Event, frozen=True, kw_only=True):
    """A request the teacher has to answer, with the router's reason (topic `deferred`).

    `drawn` and `audit_share` as in LabelledCall; the trace carries them, and `opinions`, on.
    """

    request: Request
    reason: Reason
    deferred_at: Timestamp
    outcome: TeacherOutcome = Outcome.DEFERRED
    observation_probability: Probability = 1.0
    label: Label | None = None
    accept_score: float | None = None
    threshold: float | None = None
    version: str | None = None
    opinions: list[Opinion] = msgspec.field(default_factory=list)
    drawn: bool = False
    audit_share: Share = 0.0
    timings: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome is Outcome.HANDLED:
            # Worded as msgspec does, so that the codec finds the field.
            raise ValueError("Invalid enum value 'handled' - at `$.outcome`")


class CertificateSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gate certified: P(agreement >= alpha) >= 1 - delta on exchangeable traffic, and of
    a new sample of `next_sample` times the evidence as well."""

    kind: Literal["holdout", "crossfit"]
    alpha: float
    delta: float
    method: str
    n_evidence: Count
    coverage: float
    agreement: float
    agreement_lower: float
    next_sample: Annotated[float, Meta(ge=0)] = 0.0


class ModelAnnouncement(Event, frozen=True, kw_only=True):
    """What became of a fit or of a version (topic `models`).

    `figures` are the evidence for it by name, such as `n_audits`, `agreement`, `lower`, `e_value`,
    `fresh_agreement` or `challenger_coverage`; `actor` is who asked for a change made by hand.
    `alpha`: of the kind `alpha`, what is asked for from now on; None: what the tasks file says.
    """

    kind: AnnouncementKind
    task: TaskName
    announced_at: Timestamp
    reason: str
    version: str | None = None
    previous_version: str | None = None
    epoch: Count | None = None
    window: str | None = None
    n_traces: Count | None = None
    manifest_sha256: str | None = None
    encoder: str | None = None
    certificate: CertificateSummary | None = None
    figures: dict[str, float] = msgspec.field(default_factory=dict)
    actor: str | None = None
    alpha: Annotated[float, Meta(gt=0, lt=1)] | None = None


def utc(moment: datetime) -> datetime:
    """The same moment in UTC, so that events compare and print alike."""
    return moment.astimezone(UTC)
