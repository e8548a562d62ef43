"""The system's words as people read them; the same on every page and in the JSON API."""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts.events import AnnouncementKind, CertificateSummary, Reason
from shared.contracts.manifest import FrontierPoint, Manifest
from shared.registry.base import State
from shared.rounding import at_least, whole


class Word(NamedTuple):
    """`tone` is how it is shown: good, neutral, warning or bad."""

    title: str
    says: str
    tone: str = "neutral"


STATES: dict[State, Word] = {
    State.SERVING: Word("Serving", "The active version answers what it is certified for.", "good"),
    State.PROBATION: Word(
        "On probation",
        "Its audits looked bad. The teacher answers until more of them clear or trip it.",
        "warning",
    ),
    State.PAUSED: Word(
        "Paused", "Somebody paused it. The teacher answers everything until it is resumed.",
        "warning",
    ),
    State.TRIPPED: Word(
        "Tripped",
        "Its agreement fell credibly below what was asked. It answers no more; the next certified "
        "version will.",
        "bad",
    ),
}  # fmt: skip
ALPHA_RAISED = Word(
    "Refitting",
    "More agreement is asked for than the active version is certified for. The teacher answers "
    "until a refit is certified.",
    "warning",
)
NO_VERSION = Word(
    "Learning",
    "No version is active. The teacher answers everything, and each answer is a trace to learn "
    "from.",
)

REASONS: dict[Reason, Word] = {
    Reason.CERTIFIED: Word("Certified", "The surrogate was sure enough to answer."),
    Reason.BELOW_THRESHOLD: Word(
        "Not sure enough", "The accept score stayed below the certified threshold."
    ),
    Reason.OUT_OF_DISTRIBUTION: Word(
        "Unlike the traffic", "Nothing like it was in the traffic the certificate is of."
    ),
    Reason.LABEL_FLOOR: Word("Label deferred", "The label fell short of the floor per label."),
    Reason.NO_ACTIVE_VERSION: Word("No version", "Nothing was certified yet, or it was retired."),
    Reason.PAUSED: Word("Paused", "Somebody had paused the version."),
    Reason.TRIPPED: Word("Tripped", "The version's agreement had fallen below what was asked."),
    Reason.INVALID_INPUT: Word("Invalid input", "The request could not be classified at all."),
    Reason.PROBATION: Word("Probation", "The version was being checked."),
    Reason.ALPHA_RAISED: Word(
        "α was raised", "The version is certified for less agreement than is asked for now."
    ),
    Reason.LABEL_REMOVED: Word("Label removed", "The label is no longer in the taxonomy."),
}

KINDS: dict[AnnouncementKind, Word] = {
    AnnouncementKind.PUBLISHED: Word("Published", "Certified and active.", "good"),
    AnnouncementKind.REFUSED: Word("Refused", "Nothing could be certified.", "warning"),
    AnnouncementKind.RETIRED: Word("Retired", "No version is active any more.", "warning"),
    AnnouncementKind.ROLLED_BACK: Word("Rolled back", "An earlier version is active.", "warning"),
    AnnouncementKind.KEPT: Word("Kept", "The active version stays.", "good"),
    AnnouncementKind.TRIPPED: Word("Tripped", "Audits showed too little agreement.", "bad"),
    AnnouncementKind.PROBATION: Word("On probation", "Audits looked bad.", "warning"),
    AnnouncementKind.CLEARED: Word("Cleared", "Audits of the probation were good.", "good"),
    AnnouncementKind.PAUSED: Word("Paused", "The teacher answers everything.", "warning"),
    AnnouncementKind.RESUMED: Word("Resumed", "It answers again.", "good"),
    AnnouncementKind.SHADOW: Word("In the shadow", "Scored beside the active version."),
    AnnouncementKind.CANARY: Word("Canary", "Answers a share of the requests."),
    AnnouncementKind.PROMOTED: Word("Promoted", "The version on trial is active.", "good"),
    AnnouncementKind.WITHDRAWN: Word("Withdrawn", "The trial ended without promotion."),
    AnnouncementKind.ALPHA: Word("Another α", "Another agreement is asked for from then on."),
}


def word_of_kind(kind: AnnouncementKind) -> Word:
    return KINDS.get(kind) or Word(kind.value.replace("_", " ").capitalize(), "")


def word_of_reason(reason: Reason) -> Word:
    return REASONS.get(reason) or Word(reason.value.replace("_", " ").capitalize(), "")


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def alpha_says(alpha: float, certified: float | None, point: FrontierPoint | None) -> str:
    """What asking for α would do, by the frontier's answer. `certified`: the α of the active
    version's certificate, None without one."""
    if certified is None:
        return "No version is active: the next window is judged by it."
    until = (
        "; until a refit is certified the teacher answers everything" if alpha > certified else ""
    )
    if point is None:
        return f"The frontier does not reach α = {alpha:g}: only a refit will tell{until}."
    if not point.coverage:
        return f"At α = {alpha:g} the same traces would certify nothing: all would be deferred."
    return (
        f"At α = {alpha:g} the same traces certify about {percent(point.coverage)} of the requests"
        f"{until}."
    )


def certificate_sentence(certificate: CertificateSummary) -> str:
    """The certificate in one plain sentence."""
    return (
        f"This version answers {percent(certificate.coverage)} of the requests itself, and on at "
        f"least {whole(certificate.alpha)} of those it gives the label the teacher would have "
        f"given; such a certificate is wrong at most {whole(certificate.delta)} of the time."
    )


def certificate_in_full(manifest: Manifest) -> tuple[str, ...]:
    """Everything it rests on, a sentence each."""
    c = manifest.certificate
    evidence = (
        "traces kept apart for the certificate alone, so the statement is exact"
        if c.kind == "holdout"
        else "traces scored by models that had not seen them, and refitted on all: nearly all the "
        "data for both, at the price of an approximation"
    )
    said = [
        f"Agreement on the evidence was {percent(c.agreement, 2)} of what is handled; with "
        f"probability {whole(1 - c.delta)} or more it is no lower than "
        f"{at_least(c.agreement_lower, 2)}.",
        f"The evidence: {c.n_evidence:,} {evidence}.",
        f"It was fitted on {manifest.n_traces:,} traces up to the window of {manifest.window}.",
        "It holds for traffic like that of the evidence; audits watch whether it still is.",
    ]
    if c.next_sample:
        said.insert(
            1,
            f"A new sample of {c.next_sample:g} times the evidence will show the agreement as "
            "well, with the same probability.",
        )
    if manifest.deferred_labels:
        said.append(
            f"Deferred whole, for they fell short of the floor: "
            f"{', '.join(manifest.deferred_labels)}."
        )
    if manifest.teacher and manifest.teacher.model:
        said.append(f"The teacher is {manifest.teacher.model}; another one voids the certificate.")
    return tuple(said)
