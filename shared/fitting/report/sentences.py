"""Figures in plain English."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared.contracts.report import Certificate, CurvePoint, LabelPair
from shared.core.gate import Certified
from shared.core.report.curves import Needs, Verdict
from shared.rounding import at_least, down, whole


def exactly(share: float) -> str:
    return f"{100.0 * share:.1f}%"


def number(n: float) -> str:
    """Two digits are enough for an estimate; small ones are whole."""
    if n >= 1000:
        step = 10 ** (len(str(int(n))) - 2)
        n = round(n / step) * step
    return f"{n:,.0f}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b and c`, or `a, b, c and 4 others`."""
    shown, others = list(names[:most]), len(names) - most
    if others > 0:
        return f"{', '.join(shown)} and {others} {'other' if others == 1 else 'others'}"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def summary(certificate: Certificate | None, reason: str) -> str:
    if certificate is None:
        return f"Nothing is handled; the teacher answers everything: {reason}."
    return (
        f"Of 1,000 requests {1000 * certificate.coverage:.0f} are answered without the LLM, at "
        f"most {math.ceil(certificate.wrong_per_1000_at_most)} of them otherwise than the LLM "
        "would have."
    )


def certificate_sentence(verdict: Certified) -> str:
    return (
        f"With {whole(1 - verdict.delta)} confidence the surrogate agrees with the teacher on at "
        f"least {at_least(verdict.agreement_lower)} of the {exactly(verdict.coverage)} of the "
        "traffic that it answers."
    )


def certificate_in_full(verdict: Certified) -> tuple[str, ...]:
    """Everything the promise depends on."""
    sentences = [
        f"Promised: on traffic like the evidence's, agreement is at least α = {verdict.alpha:g}, "
        f"with probability 1 - δ = {1 - verdict.delta:g} over the evidence drawn.",
        f"Found: of {verdict.n_evidence:,} traces of evidence {exactly(verdict.coverage)} are "
        f"handled; on those agreement is {verdict.agreement:.4f} and, by an exact binomial bound, "
        f"at least {down(verdict.agreement_lower, 4):.4f}.",
        "Evidence: held-out rows, used for nothing else, so the bound is exact."
        if verdict.kind == "holdout"
        else "Evidence: every trace, answered by a surrogate fitted without it and its "
        "near-duplicates; the one served is refitted on all of them, so the bound is approximate.",
        "Tested: thresholds in a fixed order from strict to loose, each against agreement below "
        "α, up to the first that fails (Learn then Test, fixed-sequence).",
    ]
    if verdict.next_sample:
        sentences.append(
            f"A new sample {verdict.next_sample:g} times as large would show the agreement too, "
            "with the same probability."
        )
    sentences.append(
        "Not promised: anything about traffic of another kind, another teacher or prompt, or one "
        "label alone. Audits watch for those."
    )
    return tuple(sentences)


def slice_sentence(
    kind: str, name: str, measure: str, value: float, lower: float, upper: float, average: float
) -> str:
    of = {
        "label": f"labelled {name}",
        "length": f"of {name}",
        "word": f"with “{name}”",
        "cluster": f"about {name}",
    }.get(kind, name)
    told = f"{exactly(value)} ({exactly(lower)} to {exactly(upper)})"
    if measure == "coverage":
        return f"Of the traces {of} {told} are handled, of all {exactly(average)}."
    return f"Of the handled traces {of} {told} agree, of all {exactly(average)}."


def deferral_sentence(
    reason: str, n: int, pairs: Sequence[LabelPair], labels: Sequence[str], *, few: int
) -> str:
    traces = f"{n:,} {'trace' if n == 1 else 'traces'}"
    are, lie = ("is", "lies") if n == 1 else ("are", "lie")
    match reason:
        case "label_floor":
            return f"{traces} would get {listed(labels)}: below the task's floor, deferred whole."
        case "contradicted":
            return (
                f"{traces} {are} near-duplicates that the teacher answered differently; no "
                "surrogate can agree with both answers."
            )
        case "novel":
            return f"{traces} {are} unlike anything the surrogate was trained on."
        case "few_traces":
            return (
                f"{traces} {are} of labels, or look like labels, with fewer than {few} traces: "
                f"{listed(labels)}."
            )
        case "ambiguous":
            often = f", most often {pairs[0].a} and {pairs[0].b}" if pairs else ""
            return f"{traces} {lie} between two labels{often}."
        case "refused":
            return f"{traces} {are} clear by themselves, but nothing was certified."
    return (
        f"{traces} {are} clear by themselves, but so unsure that the evidence does not certify "
        "answers like them: more traces, or a lower α, would."
    )


def curve_sentence(
    what: str, verdict: Verdict, now: float, twice: CurvePoint, needs: Needs | None, target: float
) -> str:
    told = (
        f"twice the traces would bring agreement on {what} from {exactly(now)} to about "
        f"{exactly(twice.agreement)} ({exactly(twice.lower)} to {exactly(twice.upper)})"
    )
    match verdict:
        case "plateaued":
            return f"Plateaued: {told}; more traces are not what is missing."
        case "cannot_tell":
            return f"One cannot tell yet: {told}."
    wanted = whole(target)
    if needs is None:
        # Measured on four fifths of the traces; what is served is fitted on all of them.
        if now >= target:
            there = "is reached"
        elif twice.agreement >= target:
            there = "is about reached"
        else:
            there = "is not within reach of traces alone"
        return f"Still growing: {told}; {wanted} {there}."
    until = number(needs.upper) if needs.upper is not None else "far more"
    return (
        f"Still growing: {told}; {wanted} needs about {number(needs.more)} more traces "
        f"({number(needs.lower)} to {until})."
    )
