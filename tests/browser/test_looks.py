"""Pages that everybody can read: axe finds nothing serious, nothing is cut off at 360 pixels.

The screenshots of the README and of the documentation are made here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Open, sign_in
from playwright.sync_api import Page

from tests.console_place import Place

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
# Committed pictures change only when asked: make test-browser SCREENSHOTS=docs/images.
PICTURES = ROOT / os.environ.get("TRACER_SCREENSHOTS", "build/screenshots")
TALLEST = 1_320  # of a picture, in pixels
WIDTHS = {"wide": 1440, "narrow": 360}

# Where axe looks, which takes seconds a page: both schemes, both widths.
AUDITED = {("light", "wide"), ("dark", "narrow")}

Scheme = Literal["light", "dark"]


def paths(place: Place) -> dict[str, str]:
    version = place.versions["support"][-1]
    return {
        "overview": "/",
        "task": "/tasks/support",
        "empty-task": "/tasks/routing",
        "version": f"/tasks/support/versions/{version}",
        "report": "/tasks/support/reports/unpublished-2026-01-05",
        "confirm": "/tasks/support/actions/rollback",
        "explain": "/tasks/tickets/explain",
        "fleet": "/fleet",
        "dead-letters": "/dead-letters",
        "error": "/nowhere",
    }


def grave(page: Page) -> list[str]:
    """axe's serious and critical findings, with where they are."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{finding['id']}: {finding['help']} {[node['target'] for node in finding['nodes'][:3]]}"
        for finding in found
        if finding["impact"] in ("serious", "critical")
    ]


def opened(new_context: Open, place: Place, scheme: Scheme, width: int) -> Page:
    context = new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    sign_in(page, place.url)
    page.get_by_role("heading", name="Tasks").wait_for()
    return page


def show_some_decisions(page: Page, place: Place) -> None:
    """As they happen; the page's reader begins at the end of the topic, once it has joined."""
    for _ in range(60):
        if page.locator("#live tbody tr").count() >= 8:
            return
        place.decide(f"request-{uuid4().hex[:6]}")
        page.wait_for_timeout(120)
    raise AssertionError("no decision was shown")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_pages_are_readable_by_everybody(
    new_context: Open, place: Place, scheme: Scheme, width: str
) -> None:
    page = opened(new_context, place, scheme, WIDTHS[width])
    PICTURES.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    place.beat()
    for name, path in paths(place).items():
        page.goto(f"{place.url}{path}")
        page.wait_for_load_state("load")
        for chart in page.locator("[data-chart]").all():
            chart.scroll_into_view_if_needed()
            chart.locator("canvas").wait_for()
        if name == "task":
            show_some_decisions(page, place)
        if name == "explain":
            page.get_by_role("textbox", name="Text", exact=True).fill(
                "the courier charged my card twice"
            )
            page.get_by_role("button", name="Explain", exact=True).click()
            page.locator("#answer-title").wait_for()
            page.get_by_text("The words as a table").click()
        page.evaluate("scrollTo(0, 0)")
        if (scheme, width) in AUDITED:
            problems += [f"{name}: {finding}" for finding in grave(page)]
        across = page.evaluate("document.documentElement.scrollWidth")
        if across > WIDTHS[width]:
            problems.append(f"{name}: {across} pixels across")
        if name in ("overview", "task", "version", "explain"):
            picture = PICTURES / f"console-{name}-{scheme}-{width}.png"
            page.mouse.move(0, 0)
            height = page.evaluate("document.documentElement.scrollHeight")
            page.screenshot(
                path=picture, full_page=True, animations="disabled",
                clip={"x": 0, "y": 0, "width": WIDTHS[width], "height": min(height, TALLEST)},
            )  # fmt: skip
            assert picture.stat().st_size > 10_000
    assert not problems, "\n".join(problems)


def test_the_sign_in_page_and_a_dialog_too(new_context: Open, place: Place) -> None:
    page = new_context().new_page()
    page.goto(place.url)
    assert grave(page) == []
    sign_in(page, f"{place.url}/tasks/support")
    page.locator("#do-rollback").click()
    page.get_by_role("dialog").wait_for()
    assert grave(page) == []


def test_colours_are_kept_where_somebody_chose_them(new_context: Open, place: Place) -> None:
    page = opened(new_context, place, "light", 1440)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()  # light, as it is
    page.locator("#theme").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


def test_a_bad_page_is_found(new_context: Open, place: Place) -> None:
    page = new_context().new_page()
    page.goto(f"{place.url}/sign-in")
    page.evaluate(
        """() => {
          const picture = document.createElement("img");
          picture.src = "/static/own/icon.svg";
          document.querySelector("main").append(picture);
        }"""
    )
    assert any("alternative text" in finding for finding in grave(page))
