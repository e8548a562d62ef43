"""Pages that everybody can read: axe finds nothing serious, nothing is cut off at 360 pixels.

The screenshots of the README and of the documentation are made here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Open, sign_in
from playwright.sync_api import Page

from tests.console_place import Place

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
# Committed pictures change only when asked: TRACER_SCREENSHOTS=docs/images make test-browser.
PICTURES = os.environ.get("TRACER_SCREENSHOTS")
WIDTHS = {"wide": 1440, "narrow": 360}

Scheme = Literal["light", "dark"]


def paths(place: Place) -> dict[str, str]:
    version = place.versions["support"][-1]
    return {
        "overview": "/",
        "task": "/tasks/support",
        "empty-task": "/tasks/routing",
        "version": f"/tasks/support/versions/{version}",
        "confirm": "/tasks/support/actions/rollback",
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_pages_are_readable_by_everybody(
    new_context: Open, place: Place, scheme: Scheme, width: str, tmp_path: Path
) -> None:
    page = opened(new_context, place, scheme, WIDTHS[width])
    folder = ROOT / PICTURES if PICTURES else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    for name, path in paths(place).items():
        page.goto(f"{place.url}{path}")
        page.wait_for_load_state("load")
        for chart in page.locator("[data-chart]").all():
            chart.scroll_into_view_if_needed()
            chart.locator("canvas").wait_for()
        page.evaluate("scrollTo(0, 0)")
        problems += [f"{name}: {finding}" for finding in grave(page)]
        across = page.evaluate("document.documentElement.scrollWidth")
        if across > WIDTHS[width]:
            problems.append(f"{name}: {across} pixels across")
        if name in ("overview", "task", "version"):
            picture = folder / f"console-{name}-{scheme}-{width}.png"
            page.screenshot(path=picture, full_page=True, animations="disabled")
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
