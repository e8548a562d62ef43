"""The report of a fit: what its surrogate handles, where it plateaus, why it defers.

`schemas/reports/report.v1.schema.json` is made from these structs by `make schemas`. Nothing in a
report depends on when or where the fit ran. Texts are previews: short, redacted where the task
says so, and absent where it switches previews off.

Shares are 0 to 1. An interval (`lower`, `upper`) holds with probability 1 - `risk` of its part of
the report. `sentence` fields say the same for people, in plain English.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from shared.contracts.events import Count, Label, Share, TaskName

MAX_REPORT_BYTES = 1024 * 1024
PREVIEW_CHARS = 200

Preview = Annotated[str, Meta(max_length=PREVIEW_CHARS + 1)]
SliceKind = Literal["all", "label", "length", "word", "cluster"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a report is made of."""


class Example(Part, frozen=True, kw_only=True):
    """One trace. `texts`: previews, one or two, none where previews are off. `said`: the
    surrogate's answer out of fold; `accept`: how sure it is that the teacher would agree."""

    texts: tuple[Preview, ...]
    teacher: Label
    said: Label | None = None
    accept: float | None = None


class Point(Part, frozen=True, kw_only=True):
    """What this fit certifies at one α; coverage 0 means refused."""

    alpha: float
    coverage: Share
    agreement: Share
    agreement_lower: Share


class Certificate(Part, frozen=True, kw_only=True):
    """The gate's answer. `sentence`: in one plain sentence; `in_full`: everything it depends on,
    a sentence each. `wrong_per_1000_at_most`: wrong answers in 1,000 requests, handled or not.
    `coverage_lower`, `coverage_upper`: the exact 95% interval of the evidence; None in reports of
    before it was told."""

    sentence: str
    in_full: tuple[str, ...]
    kind: Literal["holdout", "crossfit"]
    method: str
    alpha: float
    delta: float
    next_sample: float
    n_evidence: Count
    coverage: Share
    agreement: Share
    agreement_lower: Share
    wrong_per_1000_at_most: float
    coverage_lower: Share | None = None
    coverage_upper: Share | None = None


class Slice(Part, frozen=True, kw_only=True):
    """A part of the traffic that credibly differs from the rest.

    measure: `coverage`, the share of the slice that is handled, or `agreement`, of what is handled
    there; `value` of it in the slice, `average` over everything. name: the label, the lengths, the
    word, or a cluster's most telling words. p_value: corrected for all slices looked at.
    """

    kind: SliceKind
    name: str
    measure: Literal["coverage", "agreement"]
    n: Count
    value: Share
    lower: Share
    upper: Share
    average: Share
    p_value: float
    sentence: str


class Slices(Part, frozen=True, kw_only=True):
    """risk: of those found, at most this share is expected not to differ; where none differs, none
    is found with probability 1 - risk."""

    risk: float
    n_tested: Count
    found: tuple[Slice, ...]


class LabelRow(Part, frozen=True, kw_only=True):
    """One label of the teacher's, on the evidence: n traces, the shares handled and, of those,
    agreeing (None where none is handled), with intervals."""

    label: Label
    n: Count
    n_handled: Count
    coverage: Share
    coverage_lower: Share
    coverage_upper: Share
    agreement: Share | None = None
    agreement_lower: Share | None = None
    agreement_upper: Share | None = None


DeferralKind = Literal[
    "label_floor", "novel", "contradicted", "few_traces", "ambiguous", "certificate", "refused"
]


class LabelPair(Part, frozen=True, kw_only=True):
    """Two labels that deferred traces are torn between; `a` is the likelier one of most."""

    a: Label
    b: Label
    n: Count


class Deferral(Part, frozen=True, kw_only=True):
    """One reason and all deferred traces it is the reason of.

    `label_floor`: of a label that is deferred whole. `novel`: unlike anything seen. `contradicted`:
    the teacher answered near-duplicates differently. `few_traces`: of a label with too few.
    `ambiguous`: between two labels, `pairs` the most frequent. `certificate`: sure by itself, but
    the evidence does not reach that far down. `refused`: nothing was certified.
    share: of all traffic, with its exact 95% interval.
    """

    reason: DeferralKind
    n: Count
    share: Share
    sentence: str
    pairs: tuple[LabelPair, ...] = ()
    labels: tuple[Label, ...] = ()
    examples: tuple[Example, ...] = ()
    lower: Share | None = None
    upper: Share | None = None


class Deferrals(Part, frozen=True, kw_only=True):
    """Every deferred trace of the evidence has exactly one of the reasons."""

    n: Count
    n_evidence: Count
    reasons: tuple[Deferral, ...]


class Words(Part, frozen=True, kw_only=True):
    """A piece of a text; `differs`: the other text of the pair has it not."""

    text: str
    differs: bool = False


class BoundaryPair(Part, frozen=True, kw_only=True):
    """Two traces of one label that are each other's nearest across the boundary: one is handled,
    one deferred. similarity: cosine of their embeddings, -1 to 1."""

    label: Label
    similarity: float
    handled: tuple[Words, ...]
    deferred: tuple[Words, ...]
    handled_accept: float
    deferred_accept: float
    reason: DeferralKind


class Confusion(Part, frozen=True, kw_only=True):
    """Labels taken for each other, out of fold. `a_as_b`: the teacher says a, the surrogate b."""

    a: Label
    b: Label
    n: Count
    n_handled: Count
    a_as_b: tuple[Example, ...]
    b_as_a: tuple[Example, ...]
    n_a_as_b: Count
    n_b_as_a: Count


class CurvePoint(Part, frozen=True, kw_only=True):
    """Agreement of the surrogate's answers, handled or not, when fitted on `n` traces of all
    labels."""

    n: Count
    agreement: Share
    lower: Share
    upper: Share


class Curve(Part, frozen=True, kw_only=True):
    """How agreement on a slice grows with traces, and what more of them would bring.

    n_slice: traces of the slice that were scored. forecast: at more traces than there are.
    verdict: `growing`, more traces credibly help; `plateaued`, they credibly do not; `cannot_tell`.
    needs: so many more traces of the whole task until agreement on the slice reaches `target`, with
    an interval; None where it is there already, or is not within reach.
    """

    kind: SliceKind
    name: str
    n_slice: Count
    points: tuple[CurvePoint, ...]
    forecast: tuple[CurvePoint, ...]
    verdict: Literal["growing", "plateaued", "cannot_tell"]
    target: float
    sentence: str
    needs: Count | None = None
    needs_lower: Count | None = None
    needs_upper: Count | None = None


class Curves(Part, frozen=True, kw_only=True):
    """risk: of each interval of a curve."""

    risk: float
    curves: tuple[Curve, ...]


class SliceChange(Part, frozen=True, kw_only=True):
    """A label that credibly changed. p_value: corrected for all labels compared. Each share is of
    so many traces, with its exact 95% interval."""

    label: Label
    measure: Literal["coverage", "agreement"]
    before: Share
    now: Share
    p_value: float
    n_before: Count | None = None
    before_lower: Share | None = None
    before_upper: Share | None = None
    n_now: Count | None = None
    now_lower: Share | None = None
    now_upper: Share | None = None


class Deltas(Part, frozen=True, kw_only=True):
    """Against the version that was active when this fit was made; None where one of the two was
    refused or said nothing of it. Bounds of coverage are its 95% interval, `agreement_lower` is
    what each certificate promises. n_compared: comparisons made of labels; of the changes told at
    most the share `risk` is expected to be none."""

    previous: str
    coverage_before: Share | None
    coverage_now: Share | None
    agreement_before: Share | None
    agreement_now: Share | None
    n_traces_before: Count
    n_traces_now: Count
    labels_added: tuple[Label, ...]
    labels_removed: tuple[Label, ...]
    changes: tuple[SliceChange, ...]
    sentence: str
    coverage_before_lower: Share | None = None
    coverage_before_upper: Share | None = None
    coverage_now_lower: Share | None = None
    coverage_now_upper: Share | None = None
    agreement_lower_before: Share | None = None
    agreement_lower_now: Share | None = None
    n_compared: Count | None = None
    risk: float | None = None


class Money(Part, frozen=True, kw_only=True):
    """What the certified coverage saves, after audits, in US dollars. None: no trace and no
    setting says. `requests_per_day`: of the newest window. Bounds are the coverage's 95% interval;
    prices and the number of requests are taken as they are."""

    requests_per_day: float
    calls_saved_per_1000: float
    calls_saved_per_day: float
    tokens_saved_per_day: float | None
    saved_per_day: float | None
    saved_per_month: float | None
    spent_per_day: float | None
    price_from: str | None
    sentence: str
    calls_saved_per_1000_lower: float | None = None
    calls_saved_per_1000_upper: float | None = None
    saved_per_month_lower: float | None = None
    saved_per_month_upper: float | None = None


class Report(Part, frozen=True, kw_only=True):
    """Everything about one fit. `version`: None where none was published of it: it was refused, or
    an older version stays. `reason`: the verdict in words.

    `frontier` has the same fit's answers at other α. `labels` are those with most traces;
    `n_labels` says how many there are. `notes`: what a reader should know of what was left out.
    """

    v: Literal[1] = 1
    task: TaskName
    window: str
    version: str | None
    refused: bool
    reason: str
    summary: str
    n_traces: Count
    n_evidence: Count
    n_labels: Count
    alpha: float
    delta: float
    previews: bool
    redacted: bool
    certificate: Certificate | None
    frontier: tuple[Point, ...]
    slices: Slices
    labels: tuple[LabelRow, ...]
    deferrals: Deferrals
    pairs: tuple[BoundaryPair, ...]
    confusions: tuple[Confusion, ...]
    curves: Curves
    deltas: Deltas | None
    money: Money | None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the registry keeps it under: the version, or `unpublished-<window>`."""
        return self.version or unpublished_key(self.window)

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic")


class InvalidReport(ValueError):
    """Bytes that are no report, or too many."""


def unpublished_key(window: str) -> str:
    """Of the report of a window whose fit was not published."""
    return f"unpublished-{window}"


def decode_report(data: bytes) -> Report:
    """Raises InvalidReport, naming the field."""
    if len(data) > MAX_REPORT_BYTES:
        raise InvalidReport(f"report of {len(data):,} bytes exceeds {MAX_REPORT_BYTES:,}")
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReport(f"not a report: {error}") from error
