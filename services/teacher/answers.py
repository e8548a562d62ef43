"""What can come of asking a teacher, whoever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

import msgspec

from shared.bus.errors import InvalidMessage, Retryable
from shared.contracts.events import MOST_TOKENS, Input, Tokens
from shared.contracts.prompting import LABEL, read_answer
from shared.contracts.tasks import Task

MAX_WHY_CHARS = 300
_BAD_REQUEST, _UNKNOWN_KEY, _NO_CREDIT, _FORBIDDEN = 400, 401, 402, 403
_NO_CREDIT_WORDS = "credit balance is too low"  # Anthropic's, with status 400
_PASSING = (408, 409, 425, 429)
# A proxy gave up waiting for a model that may have answered all the same.
_GAVE_UP_WAITING = (408, 504, 524)
_UNKNOWN_PARAMETER = (400, 404, 422)


U = TypeVar("U", bound=msgspec.Struct)
NO_USAGE = msgspec.Raw(b"{}")


@dataclass(frozen=True, slots=True)
class Used:
    """What a question took, whatever came of it: HTTP calls, and whether the last is `charged` for
    (an endpoint has computed, or may have); `tokens` as it counted them."""

    calls: int = 0
    charged: bool = False
    tokens: Tokens | None = None

    def after(self, refused: int) -> Used:
        """With the calls before, which the endpoint refused for how they asked."""
        return replace(self, calls=self.calls + refused)


NOTHING = Used()
A_CALL = Used(calls=1)
CHARGED = Used(calls=1, charged=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, read as a label; `model` is the name the endpoint gives itself, `cost`
    in US dollars where somebody has counted it, `calls` the HTTP calls it took. `words`: of an
    answer in words, as they came."""

    label: str
    model: str
    tokens: Tokens | None = None
    cost: float | None = None
    calls: int = 1
    words: str = ""


class PassingFault(Exception):
    """The same call may succeed later, not before `retry_after` seconds if that is given."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, used: Used = NOTHING
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.used = used


class EndpointRefuses(Retryable):
    """The endpoint does not let us in: every call fails until somebody repairs the settings, or
    pays. Of a single text it may also be said, by a moderation or a firewall before the model."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.used = NOTHING


class CannotAnswer(InvalidMessage):
    """This request will never be answered.

    `kind` is for the decision, which quotes no texts; `words`, the endpoint's or the model's, may
    repeat the request's and are for the dead letter alone, which holds it anyway.
    """

    def __init__(self, kind: str, *, words: str = "", field: str = "", used: Used = A_CALL) -> None:
        super().__init__(f"{kind}: {words}" if words else kind, field=field)
        self.kind = kind
        self.used = used


class Ask(Protocol):
    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        ...


class Teaches(Ask, Protocol):
    """An endpoint and its client, safe to call from many threads."""

    def probe(self, *, timeout: float) -> None:
        """Whether it is there and lets us in. Raises PassingFault or EndpointRefuses."""
        ...

    def close(self) -> None: ...


def fate(
    status: int, headers: Mapping[str, str], why: str, *, url: str, secret: str, now: datetime
) -> PassingFault | EndpointRefuses | CannotAnswer:
    """What an HTTP status of a failed call means. `why`: the endpoint's words."""
    # All these without the endpoint's words: they may repeat part of the key.
    if status == _NO_CREDIT or (status == _BAD_REQUEST and _NO_CREDIT_WORDS in why.lower()):
        return EndpointRefuses(f"{url} gives no more credit ({status})")
    if status == _UNKNOWN_KEY:
        return EndpointRefuses(f"{url} refuses the API key ({status})")
    if status == _FORBIDDEN:
        return EndpointRefuses(f"{url} refuses the API key, or this text ({status})")
    if status in _PASSING or status >= 500:
        after = _retry_after(headers, now)
        used = CHARGED if status in _GAVE_UP_WAITING else NOTHING
        return PassingFault(f"the endpoint answered {status}", retry_after=after, used=used)
    why = why.replace(secret, "***")[:MAX_WHY_CHARS]
    return CannotAnswer(f"the endpoint answered {status}", words=why, field="request.input")


def cut_short(reason: str, used: Used) -> CannotAnswer:
    """For an answer that ended where its room did: what is there may be half of another label."""
    return CannotAnswer(
        f"the answer was cut short ({reason}): a larger max_tokens may help",
        field="request.input",
        used=used,
    )


def may_not_know_how(status: int) -> bool:
    """Whether a structured question may have failed for being structured."""
    return status in _UNKNOWN_PARAMETER


def structured_label(content: str) -> str:
    """The label of a structured answer; of words, where an endpoint gave words all the same.

    Returns "" for the beginning of a document, or one without a label.
    """
    if not content.lstrip().startswith("{"):
        return read_answer(content)
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    label = document.get(LABEL)
    return label.strip() if isinstance(label, str) else ""


def read_usage(raw: msgspec.Raw, kind: type[U]) -> U:
    """What the endpoint counted, as far as it can be read: nonsense here spoils no answer."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return kind()


def counted(asked: int | None, answered: int | None) -> Tokens | None:
    """None where the endpoint did not count, or counted nonsense."""
    if asked is None or answered is None:
        return None
    if min(asked, answered) < 0 or max(asked, answered) > MOST_TOKENS:
        return None
    return Tokens(input=asked, output=answered)


def _retry_after(headers: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        return None
