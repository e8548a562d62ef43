"""Templates, and how figures are written: the same digits and units everywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from services.console.assets import address
from services.console.words import word_of_reason
from shared.contracts.events import Reason
from shared.reporting.page import REASONS
from shared.rounding import at_least, down, up, whole
from shared.rounding import dollars as rounded_dollars

HERE = Path(__file__).parent
NOTHING = "–"


def environment() -> Environment:
    """Everything is escaped; a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "at_least": at_least,
        "whole": whole,
        "count": count,
        "dollars": dollars,
        "moment": moment,
        "day": day,
        "bytes": size_of,
        "bounds": bounds,
        "between": between,
        "deferral_title": lambda reason: REASONS.get(reason, str(reason).replace("_", " ")),
        "span": span,
        "reason_title": lambda reason: word_of_reason(Reason(reason)).title,
    }
    made.filters |= filters
    made.globals["asset"] = address
    # `tojson` of views, for charts; Jinja escapes what could end an attribute or an element.
    made.policies["json.dumps_function"] = lambda value, **_: msgspec.json.encode(value).decode()
    for name in made.list_templates():  # compiled now, rather than for the first who looks
        made.get_template(name)
    return made


def percent(share: float | None, digits: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{digits}f}%"


def count(n: int | float | None) -> str:
    """With thin spaces between thousands."""
    return NOTHING if n is None else f"{round(n):,}".replace(",", "\u2009")


def dollars(amount: float | None) -> str:
    """Two digits after the point, more for less than a cent."""
    if amount is None:
        return NOTHING
    return rounded_dollars(amount) if amount < 1_000 else f"${amount:,.0f}"


def moment(at: datetime | None) -> Markup | str:
    """A moment in UTC; the page's script shows it in the reader's own time as a tooltip."""
    if at is None:
        return NOTHING
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M UTC")
    )


def day(value: date | str | None) -> str:
    return NOTHING if value is None else str(value)


def size_of(n: int) -> str:
    return f"{n / 1_048_576:.1f} MiB" if n >= 1_048_576 else f"{n / 1_024:.0f} KiB"


def span(seconds: int) -> str:
    """`3 min`; two units of a size are needed before it is used."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def bounds(interval: Any) -> str:
    """`93.1 – 97.4%`, for a tooltip or a second line."""
    return NOTHING if interval.lower is None else between(interval.lower, interval.upper)


def between(lower: float, upper: float) -> str:
    return f"{down(100 * lower, 1):.1f} – {up(100 * upper, 1):.1f}%"
