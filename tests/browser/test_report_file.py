"""A report's HTML file in a real browser, opened from disk as a person opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from shared.contracts.report import Report, decode_report
from shared.contracts.topics import schemas_folder
from shared.reporting.page import render
from tests.unit.report.hostile import HOSTILE, hostile

pytestmark = pytest.mark.browser

LOOKS = [(1440, "light"), (1440, "dark"), (360, "light"), (360, "dark")]


def typical() -> Report:
    path = schemas_folder() / "reports" / "examples" / "typical.json"
    return decode_report(path.read_bytes())


class Opened:
    """A page and everything that went wrong in it."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.wrong, self.asked = page, [], []  # type: ignore[var-annotated]
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("[data-chart] svg")


@pytest.fixture
def page_of(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[object]:
    contexts = []

    def opened(report: Report, width: int = 1440, scheme: str = "light") -> Opened:
        path = tmp_path / "report.html"
        path.write_text(render(report), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        return Opened(context.new_page(), path)

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_can_be_read(page_of, width: int, scheme: str) -> None:  # type: ignore[no-untyped-def]
    opened = page_of(typical(), width, scheme)
    page = opened.page
    assert opened.wrong == []
    assert len(opened.asked) == 1  # the file itself
    assert page.locator("[data-chart] svg").count() == page.locator("[data-chart]").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps([(v["id"], v["nodes"][0]["html"]) for v in serious])


def test_long_labels_fit_a_narrow_screen(page_of) -> None:  # type: ignore[no-untyped-def]
    long = "wrong_exchange_rate_for_cash_withdrawal_abroad"  # Banking77 has nearly such
    plain = typical().encode().decode().replace("refund_status", long)
    page = page_of(msgspec.json.decode(plain, type=Report), 360).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.get_by_text(long).count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_texts_from_outside_do_nothing(page_of) -> None:  # type: ignore[no-untyped-def]
    report = msgspec.convert(hostile(json.loads(typical().encode())), Report)
    opened = page_of(report)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for chart in page.locator("[data-chart]").all():
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        for part in (0.3, 0.5, 0.7):  # tooltips are HTML
            page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)
    assert opened.wrong == []
    assert page.locator("img").count() == 0
    assert HOSTILE.replace("\u2028", "")[:30] in page.inner_text("main").replace("\u2028", "")


def test_the_charts_follow_the_colour_scheme(page_of) -> None:  # type: ignore[no-untyped-def]
    page = page_of(typical()).page
    light = page.locator("[data-chart=frontier] svg").inner_html()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    assert page.locator("[data-chart=frontier] svg").inner_html() != light
