from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import get_args

import msgspec
import pytest

from shared.contracts.report import (
    Certificate,
    Deferral,
    DeferralKind,
    Deltas,
    Money,
    Report,
    SliceChange,
    decode_report,
)
from shared.contracts.topics import schemas_folder
from shared.reporting.page import REASONS, breakable, render, script_json
from shared.rounding import at_least, at_most, dollars
from shared.web import VENDOR
from tests.artifacts import make_report
from tests.unit.report.hostile import HOSTILE, hostile


def typical() -> Report:
    path = schemas_folder() / "reports" / "examples" / "typical.json"
    return decode_report(path.read_bytes())


class Elements(HTMLParser):
    """Every element of a page, its attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.found.append(("/script", {}))


@pytest.mark.parametrize(
    "report",
    [typical(), make_report("support", None), make_report("support", "2026-01-01-0123456789ab")],
    ids=["typical", "refused", "empty"],
)
def test_a_page_is_whole_and_asks_no_one_for_anything(report: Report) -> None:
    page = render(report)
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    own = page.replace((VENDOR / "echarts.min.js").read_text(encoding="utf-8"), "")
    assert not re.findall(r"https?://", own)
    assert "url(" not in own
    assert render(report) == page


def test_every_text_from_outside_is_inert() -> None:
    plain = json.loads(typical().encode())
    report = msgspec.convert(hostile(plain), Report)
    assert report.encode().decode().count("onerror") > 30
    elements, usual = Elements(render(report)), Elements(render(typical()))
    # Labels may be broken after underscores, of which these have other numbers.
    tags, expected = ([tag for tag, _ in each.found if tag != "wbr"] for each in (elements, usual))
    assert tags == expected
    assert all("onerror" not in attributes for _, attributes in elements.found)
    assert "49" not in "".join(elements.text).split("{{")[0]
    assert json.loads(elements.scripts[0])["curves"][0]["name"] == HOSTILE
    assert HOSTILE in "".join(elements.text)


def test_labels_break_at_underscores_and_stay_text() -> None:
    assert breakable("card_arrival") == "card_<wbr>arrival"
    assert breakable("<b>_&") == "&lt;b&gt;_<wbr>&amp;"


def test_every_reason_for_deferring_has_a_title() -> None:
    assert set(REASONS) == set(get_args(DeferralKind))


def test_it_shows_what_the_report_says() -> None:
    text = "".join(Elements(render(typical())).text)
    report = typical()
    assert report.certificate is not None
    assert report.deltas is not None
    for said in (
        report.summary, report.certificate.sentence, report.deltas.sentence,
        report.curves.curves[0].sentence, report.deferrals.reasons[0].sentence,
        report.slices.found[1].name, report.notes[0], "</script><img src=x onerror=alert(1)>",
    ):  # fmt: skip
        assert said in text


def part(page: str, id: str) -> str:
    """The text of one section, spaces made one."""
    section = page.split(f'<section id="{id}">')[1].split("</section>")[0]
    return " ".join(" ".join(Elements(section.replace("<wbr>", "")).text).split())


def test_figures_have_units_and_intervals() -> None:
    page = render(typical())
    money = part(page, "money")
    for said in (
        "Calls saved of 1,000 requests 777.1 768.7 to 785.3",
        "Calls saved a day, of 1,800 requests 1,399 1,384 to 1,414",
        "Spent a day without the surrogate, US dollars $3.60",
        "Saved a month of 30 days, US dollars $83.90 $83.00 to $84.80",
        "prices from the task", "audits taken off",
    ):  # fmt: skip
        assert said in money
    changes = part(page, "changes")
    for said in (
        "Coverage, certified 76.1% 75.1% to 77.1% 79.3% 78.4% to 80.2% +3.2 points",
        "at least 95.5%", "Traces fitted on 7,200 9,003 +1,803",
        "refund_status: coverage 31.0%", " of 210 42.0%", "+11.0 points 0.003",
        "16 comparisons of labels were made; of the changes shown at most 5% are expected",
    ):  # fmt: skip
        assert said in changes
    slices = part(page, "slices")
    assert "at most 5% are expected to be chance (Benjamini and Hochberg)" in slices
    first = typical().slices.found[0]
    assert f"{at_least(first.lower)} to {at_most(first.upper)}" in slices
    assert f"{first.p_value:.2g}" in slices
    deferrals = part(page, "deferrals")
    assert "of the traffic (10.5% to 11.9%), 1,010 traces" in deferrals
    curve = typical().curves.curves[0]
    curves = part(page, "curves")
    assert curve.verdict.replace("_", " ") in curves
    for point, kind in ((curve.points[0], "measured"), (curve.forecast[-1], "forecast")):
        assert (
            f"{point.n:,} {100 * point.agreement:.1f}% {at_least(point.lower)} to "
            f"{at_most(point.upper)} {kind}" in curves
        )


def test_a_report_of_before_intervals_were_told_is_still_shown() -> None:
    plain = json.loads(typical().encode())
    added = {
        Certificate: [plain["certificate"]],
        Deferral: plain["deferrals"]["reasons"],
        Deltas: [plain["deltas"]],
        Money: [plain["money"]],
        SliceChange: plain["deltas"]["changes"],
    }
    for struct, nodes in added.items():
        for field in msgspec.structs.fields(struct):
            if field.default is None:
                for node in nodes:
                    del node[field.name]
    old = decode_report(json.dumps(plain).encode())
    assert old.deltas is not None
    assert old.deltas.coverage_now_lower is None
    page = render(old)
    assert "Coverage, certified 76.1% 79.3% +3.2 points" in part(page, "changes")
    assert "Saved a month of 30 days, US dollars $83.90" in part(page, "money")
    assert "None" not in part(page, "changes") + part(page, "money") + part(page, "deferrals")


def test_small_money_says_something() -> None:
    assert [dollars(each) for each in (0.0, 0.0000225, 0.00042, 0.05, 3.057, 12345.0)] == [
        "$0.00", "$0.000023", "$0.00042", "$0.05", "$3.06", "$12,345.00",
    ]  # fmt: skip


def test_a_chart_has_data_for_every_place() -> None:
    elements = Elements(render(typical()))
    charts = json.loads(elements.scripts[0])
    places = [a["data-chart"] for _, a in elements.found if "data-chart" in a]
    assert places
    for place in places:
        name, _, index = str(place).partition(":")
        assert charts[name][int(index)] if index else charts[name]
    assert all(a.get("aria-label") for _, a in elements.found if "data-chart" in a)


def test_json_in_a_script_cannot_leave_it() -> None:
    told = script_json({"a": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(told)
    assert json.loads(told) == {"a": "</script><!--&\u2028"}
