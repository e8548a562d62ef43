"""Who answers a request: the active version, a canary beside it, or neither; and what a version on
trial would have said where the teacher's answer will be known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from services.router.sampling import chosen
from services.router.surrogate import Answer
from shared.contracts.events import Opinion, Reason, Request
from shared.encoder.base import Encoder
from shared.registry.base import State

# In these states nothing is asked of the active version.
_SILENT = {State.PAUSED: Reason.PAUSED, State.TRIPPED: Reason.TRIPPED}


class Version(Protocol):
    """A version, loaded."""

    @property
    def version(self) -> str: ...

    @property
    def alpha(self) -> float:
        """What it is certified for."""
        ...

    def answer(self, inputs: Sequence[tuple[str, ...]], encoder: Encoder) -> list[Answer]: ...


@dataclass(frozen=True)
class OnTrial:
    """A version beside the active one. A shadow answers nobody; a canary a `share` of the
    requests."""

    version: Version
    mode: Literal["shadow", "canary"]
    share: float

    def answers(self, request: Request) -> bool:
        return self.mode == "canary" and chosen(
            f"canary {self.version.version}", request.id, self.share
        )


@dataclass(frozen=True)
class Serving:
    """What answers for a task. `alpha`: what an operator asks for; None: what is configured."""

    version: Version | None
    state: State = State.SERVING
    trial: OnTrial | None = None
    alpha: float | None = None


NOBODY = Serving(None)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a request.

    answer: of `version`, its reason `certified` if the request is handled. drawn: in the uniform
    sample that is audited. opinions: of every version asked, for the trace.
    """

    answer: Answer
    version: str | None
    drawn: bool
    opinions: tuple[Opinion, ...] = ()

    @property
    def handled(self) -> bool:
        return self.answer.reason is Reason.CERTIFIED

    @property
    def observed(self) -> bool:
        """Whether the teacher will be asked."""
        return self.drawn or not self.handled


def judge(
    requests: Mapping[int, Request],
    serving: Serving,
    *,
    alpha: float,
    audit_share: float,
    taxonomy: Collection[str],
    encoder: Encoder,
) -> dict[int, Verdict]:
    """A verdict for each request of one task, by the keys given. `alpha`: as configured."""
    canary = {
        i: request
        for i, request in requests.items()
        if serving.trial is not None and serving.trial.answers(request)
    }
    rest = {i: request for i, request in requests.items() if i not in canary}
    answers = _active_answers(rest, serving, encoder)
    if serving.trial is not None:
        asked = _ask(canary, serving.trial.version, encoder)
        answers.update({i: (serving.trial.version.version, answer) for i, answer in asked.items()})
    verdicts = {}
    falls_short = _falling_short(serving, alpha)
    for i, request in requests.items():
        version, answer = answers[i]
        drawn = chosen("audit", request.id, audit_share)
        answer = _in_taxonomy(answer, taxonomy)
        opinions = _opinion(version, answer)
        if serving.state is State.PROBATION and i not in canary:
            answer = _silenced(answer, Reason.PROBATION)
        if version in falls_short:
            answer = _silenced(answer, Reason.ALPHA_RAISED)
        verdicts[i] = Verdict(answer, version, drawn, opinions)
    return _with_shadows(verdicts, rest, serving, taxonomy, encoder)


def texts_of(request: Request) -> tuple[str, ...]:
    return (request.input,) if isinstance(request.input, str) else tuple(request.input)


def _active_answers(
    requests: Mapping[int, Request], serving: Serving, encoder: Encoder
) -> dict[int, tuple[str | None, Answer]]:
    if serving.version is None:
        return dict.fromkeys(requests, (None, Answer(Reason.NO_ACTIVE_VERSION)))
    name = serving.version.version
    if serving.state in _SILENT:
        return dict.fromkeys(requests, (name, Answer(_SILENT[serving.state])))
    asked = _ask(requests, serving.version, encoder)
    return {i: (name, answer) for i, answer in asked.items()}


def _ask(requests: Mapping[int, Request], version: Version, encoder: Encoder) -> dict[int, Answer]:
    if not requests:
        return {}
    inputs = [texts_of(request) for request in requests.values()]
    return dict(zip(requests, version.answer(inputs, encoder), strict=True))


def _in_taxonomy(answer: Answer, taxonomy: Collection[str]) -> Answer:
    """A label that was removed since the version was fitted is no answer."""
    if answer.reason is Reason.CERTIFIED and taxonomy and answer.label not in taxonomy:
        return replace(answer, reason=Reason.LABEL_REMOVED)
    return answer


def _falling_short(serving: Serving, configured: float) -> set[str]:
    """The versions in use that are certified for less than is asked for now."""
    asked = configured if serving.alpha is None else serving.alpha
    in_use = (serving.version, serving.trial.version if serving.trial else None)
    return {v.version for v in in_use if v is not None and v.alpha < asked}


def _silenced(answer: Answer, why: Reason) -> Answer:
    """The teacher answers instead, and so says whether the version would have been right."""
    return replace(answer, reason=why) if answer.reason is Reason.CERTIFIED else answer


def _with_shadows(
    verdicts: dict[int, Verdict],
    requests: Mapping[int, Request],
    serving: Serving,
    taxonomy: Collection[str],
    encoder: Encoder,
) -> dict[int, Verdict]:
    """The verdicts, with what the version on trial says of `requests` the teacher will answer."""
    if serving.trial is None:
        return verdicts
    version = serving.trial.version
    watched = {i: request for i, request in requests.items() if verdicts[i].observed}
    for i, answer in _ask(watched, version, encoder).items():
        opinions = verdicts[i].opinions + _opinion(version.version, _in_taxonomy(answer, taxonomy))
        verdicts[i] = replace(verdicts[i], opinions=opinions)
    return verdicts


def _opinion(version: str | None, answer: Answer) -> tuple[Opinion, ...]:
    if version is None or answer.label is None:
        return ()
    handled = answer.reason is Reason.CERTIFIED
    return (Opinion(version=version, label=answer.label, handled=handled),)
