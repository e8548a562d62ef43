"""Tasks: a classification endpoint each, with its labels and its α. Configuration, never code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml
from msgspec import Meta

from shared.contracts.events import LEAST_PROBABILITY, Label, Share, TaskName
from shared.contracts.mapping import SourceMapping
from shared.contracts.teaching import Budget, Price, TeacherEndpoint

Alpha = Annotated[float, Meta(gt=0, lt=1)]

WEEK_SECONDS = 604_800.0

__all__ = [
    "Budget",
    "InvalidTasks",
    "Price",
    "Task",
    "Tasks",
    "TeacherEndpoint",
    "UnknownLabels",
    "load_tasks",
]


class UnknownLabels(StrEnum):
    """What becomes of an answer that is not in the taxonomy."""

    KEEP = "keep"
    OTHER = "other"
    DEAD_LETTER = "dead_letter"


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task's settings.

    `labels` is the taxonomy; left out, every label the teacher gives is accepted as it is.
    `evidence` is the kind of certificate: `crossfit` uses every trace for both fitting and
    certifying (approximate), `holdout` keeps `holdout_share` for the certificate alone (exact).
    `next_sample`: with the same probability a new sample of that many times the evidence shows
    the agreement too; 0 certifies the traffic alone, for somewhat more coverage.
    `label_floor`: no label with enough evidence is answered below this agreement; a label that
    falls short is deferred whole.
    `audit_share`: of the requests the surrogate handles, this share (drawn by a hash of the id)
    also goes to the teacher, to watch the agreement and to keep the evidence unbiased.
    `rollout` is what a newly certified version does first: `direct` answers at once, `shadow` is
    scored beside the active version and answers nobody, `canary` answers `canary_share` of the
    requests. A version on trial may be promoted by evidence once the teacher has answered
    `promote_after` requests it had handled.
    `redact` runs over every text before it is stored, shown or learned from, and in the router
    before it is classified: `builtin`, or `package.module:function`. `previews`: whether reports
    and console show texts at all.
    Windows are days of `timezone`; a refit uses the last `horizon_days` of them, a hundred years at
    most.
    `prompt` is the teacher's instruction; the labels follow it, or stand where it says
    `{{ labels }}`. `message` is what the user is made to say, `{{ text }}` being the request's.
    `teacher` left out: the endpoint of the teacher's own settings.
    `sources` are the logs of other systems that ingest reads for this task.
    `max_rows`: of a longer horizon about so many traces are used, a part of each day and label
    drawn by a hash of the id, each standing for those left out. `half_life_days`: where some are
    left out, a day counts half as much each so many days. `fit_budget_s`: a fit that takes longer
    is given up, and the next window's tries again; a week at most.
    `refit`: `incremental` fits only what is served anew where nothing but traces has changed since
    the last full refit (docs/flywheel.md); every `full_refit_every`th window is fitted in full all
    the same.
    """

    name: TaskName
    alpha: Alpha = 0.95
    delta: Alpha = 0.1
    labels: tuple[Label, ...] = ()
    unknown_labels: UnknownLabels = UnknownLabels.KEEP
    other_label: Label = "other"
    evidence: Literal["crossfit", "holdout"] = "crossfit"
    holdout_share: Alpha = 0.3
    next_sample: Annotated[float, Meta(ge=0, le=10)] = 0.25
    label_floor: Alpha | None = None
    audit_share: Share = 0.02
    rollout: Literal["direct", "shadow", "canary"] = "direct"
    canary_share: Alpha = 0.1
    promote_after: Annotated[int, Meta(ge=1)] = 200
    horizon_days: Annotated[int, Meta(ge=1, le=36_500)] = 90
    max_rows: Annotated[int, Meta(ge=1_000)] = 100_000
    half_life_days: Annotated[float, Meta(gt=0)] | None = None
    fit_budget_s: Annotated[float, Meta(gt=0, le=WEEK_SECONDS)] = 3_600.0
    refit: Literal["full", "incremental"] = "full"
    full_refit_every: Annotated[int, Meta(ge=1)] = 7
    timezone: str = "UTC"
    prompt: str = "Classify the user's message."
    message: str = "{{ text }}"
    price: Price = Price()
    teacher: TeacherEndpoint | None = None
    budget: Budget | None = None
    sources: tuple[SourceMapping, ...] = ()
    redact: Annotated[str, Meta(pattern=r"^(builtin|[\w.]+:\w+)\Z")] | None = None
    previews: bool = True

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # "Europe" is a folder of zones
            raise ValueError(f"timezone {self.timezone!r} is not a known time zone") from None
        if 0 < self.audit_share < LEAST_PROBABILITY:
            raise ValueError(f"audit_share must be 0 or at least {LEAST_PROBABILITY:g}")
        if "{{ text }}" not in self.message:
            raise ValueError("message needs {{ text }}, where the request's text goes")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeats itself")
        if self.labels and self.unknown_labels is UnknownLabels.OTHER:
            if self.other_label not in self.labels:
                raise ValueError(f"other_label {self.other_label!r} is not one of labels")
        elif not self.labels and self.unknown_labels is not UnknownLabels.KEEP:
            raise ValueError("unknown_labels needs labels: without a taxonomy no label is unknown")


class Tasks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tasks file."""

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        formats: dict[str, str] = {}
        for task in self.tasks:
            for source in task.sources:
                if source.topic is None:
                    continue
                known = formats.setdefault(source.topic, source.format.value)
                if known != source.format.value:
                    raise ValueError(
                        f"topic {source.topic!r} is read as {known} and as {source.format.value}; "
                        "a topic has one format"
                    )

    def by_name(self) -> dict[str, Task]:
        return {task.name: task for task in self.tasks}


class InvalidTasks(ValueError):
    """The tasks file cannot be used; the message names the file, the field and the fix."""


def load_tasks(path: Path) -> dict[str, Task]:
    """Read the tasks file (YAML). Raises InvalidTasks."""
    try:
        data = path.read_bytes()
        _check_keys(data)
        return msgspec.yaml.decode(data, type=Tasks).by_name()
    except FileNotFoundError:
        raise InvalidTasks(f"{path}: no such file; set TRACER_TASKS to a tasks file") from None
    except OSError as error:
        raise InvalidTasks(f"{path}: {error.strerror}; set TRACER_TASKS to a tasks file") from None
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTasks(f"{path}: {error}") from error


def _check_keys(data: bytes) -> None:
    """Raises yaml.YAMLError where a mapping has a key twice: of those YAML's readers take the last,
    so that a forgotten dash makes one task of two."""
    open_nodes, looked_at = [yaml.compose(data, Loader=yaml.SafeLoader)], set[int]()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in looked_at:  # an alias: those can stand for very many
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            _check_twice([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            open_nodes += [value for _, value in node.value]


def _check_twice(keys: list[yaml.ScalarNode]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"{key.value!r} is there twice; is a dash missing before one?",
                problem_mark=key.start_mark,
            )
        seen.add(key.value)
