"""A report as one self-contained HTML file: no address in it is ever asked for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.contracts.report import Report
from shared.reporting.charts import curve_options, frontier_options, label_options
from shared.rounding import at_least, at_most, dollars, whole
from shared.web import VENDOR

# Why traces are deferred, as headings; the sentences below them say more.
REASONS = {
    "label_floor": "Label deferred whole",
    "contradicted": "Teacher contradicts itself",
    "novel": "Unlike anything seen",
    "few_traces": "Too few traces of the label",
    "ambiguous": "Between two labels",
    "certificate": "Beyond the evidence",
    "refused": "Nothing certified",
}
TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """Everything in it that came from outside is escaped: texts and labels show as they are and do
    nothing. The same report gives the same page."""
    environment = environment_of()
    template = environment.get_template("report.html")
    return template.render(
        report=report,
        charts=charts_of(report),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        echarts=Markup(_inline((VENDOR / "echarts.min.js").read_text(encoding="utf-8"))),  # noqa: S704
        draw=Markup(_inline((TEMPLATES / "report.js").read_text(encoding="utf-8"))),  # noqa: S704
    )


def environment_of() -> Environment:
    """The templates' environment, for pages that include their parts."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": breakable,
        "reason": lambda reason: REASONS.get(reason, str(reason).replace("_", " ")),
        "whole": whole,
        "at_least": at_least,
        "at_most": at_most,
        "percent": lambda share: "–" if share is None else f"{100 * share:.1f}%",
        "count": lambda n: f"{n:,.0f}",
        "dollars": lambda amount: "–" if amount is None else dollars(amount),
        "points": lambda change: f"{100 * change:+.1f} points",
        "words": lambda name: str(name).replace("_", " "),
    }
    return environment


def breakable(name: str) -> Markup:
    """A label that may be broken after its underscores, rather than anywhere or nowhere."""
    return Markup("_<wbr>").join(str(name).split("_"))


def charts_of(report: Report) -> Markup:
    """The charts' options by name, as JSON that is safe within a script element."""
    return script_json(
        {
            "frontier": frontier_options(report),
            "labels": label_options(report),
            "curves": [curve_options(curve) for curve in report.curves.curves],
        }
    )


def script_json(value: Any) -> Markup:
    """No text in it can end the script element or begin a comment of HTML."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _inline(script: str) -> str:
    """A script of ours or of a library's, within a script element."""
    return script.replace("</script", "<\\/script")
