"""The main journeys, as people make them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from conftest import Open, sign_in
from playwright.sync_api import Page, expect

from shared.contracts.events import AnnouncementKind
from shared.registry.base import State
from tests.console_place import READER, TENANT, Place

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]


def confirm(page: Page, button: str, why: str) -> None:
    """Fill in the dialog that an action opens, and go through with it."""
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Why").fill(why)
    with page.expect_navigation():
        dialog.get_by_role("button", name=button).click()


# --- signing in


def test_nothing_is_shown_without_signing_in(new_context: Open, place: Place) -> None:
    page = new_context().new_page()
    page.goto(f"{place.url}/tasks/support")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "support" not in page.inner_text("main")
    page.get_by_label("Token").fill("not-the-right-token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    sign_in(page, f"{place.url}/tasks/support")
    expect(page).to_have_url(f"{place.url}/tasks/support")  # where they wanted to go
    expect(page.get_by_role("heading", name="support")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{place.url}/tasks/support")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


# --- looking


def test_the_overview_says_how_each_task_does(page: Page) -> None:
    row = page.locator("#task-support")
    expect(row).to_contain_text("Serving")
    expect(row).to_contain_text("79.3%")  # certified
    expect(row).to_contain_text(re.compile(r"≥ \d\d\.\d% · \d+ audits"))
    expect(row).to_contain_text(re.compile("4\u2009\\d\\d\\d requests"))
    expect(page.locator("#task-moderation")).to_contain_text("Paused")
    expect(page.locator("#task-routing")).to_contain_text("Learning")
    expect(page.locator("#task-intents")).to_contain_text("canary on trial")
    # Each sparkline is drawn: its canvas has something on it.
    expect(page.locator("#task-support .spark canvas")).to_be_visible()


def test_from_the_overview_to_a_task_to_a_version(page: Page, place: Place) -> None:
    page.get_by_role("link", name="support").click()
    expect(page.get_by_role("heading", name="support")).to_be_visible()
    expect(page.get_by_text("This version answers 79.3% of the requests itself")).to_be_visible()
    for chart in ("days", "agreement"):
        expect(page.locator(f"[data-chart={chart}] canvas")).to_be_visible()
    expect(page.get_by_text("agreement 0.902 on the evidence is below")).to_be_visible()
    expect(page.get_by_text("Not sure enough")).to_be_visible()
    page.get_by_text("The days as a table").click()
    days = page.get_by_role("region", name="Days").locator("tbody tr")
    expect(days).to_have_count(5)
    expect(days.last).to_contain_text("2026-01-06")
    active = place.versions["support"][-1]
    page.get_by_role("link", name=active).first.click()
    expect(page.get_by_role("heading", name="The certificate")).to_be_visible()
    expect(page.locator("[data-chart=frontier] canvas")).to_be_visible()
    expect(page.get_by_text("Of 1,000 requests 793 are answered without the LLM")).to_be_visible()
    # Texts of traces are shown as they are, whatever they hold.
    expect(page.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()


def test_empty_and_wrong_pages_say_what_to_do(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/routing")
    expect(page.get_by_role("heading", name="Nothing is certified yet")).to_be_visible()
    expect(page.get_by_text("tracerctl scan")).to_be_visible()
    expect(page.get_by_role("heading", name="No live requests yet")).to_be_visible()
    page.goto(f"{place.url}/tasks/unheard-of")
    expect(page.get_by_role("heading", name="No such task")).to_be_visible()
    page.goto(f"{place.url}/tasks/support/versions/2020-01-01-000000000000")
    expect(page.get_by_role("heading", name="No such version")).to_be_visible()
    page.get_by_role("button", name="To the overview").click()
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()


def test_decisions_are_shown_as_they_happen_until_held(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/support")
    rows = page.locator("#live tbody tr")

    for attempt in range(40):  # the reader begins at the end, once it has joined
        place.decide(f"live-{attempt}")
        place.decide(f"elsewhere-{attempt}", "intents")
        page.wait_for_timeout(250)
        if rows.count():
            break
    expect(rows.first).to_contain_text("live-")
    expect(rows.first).to_contain_text(re.compile("surrogate|teacher"))
    assert "elsewhere" not in page.inner_text("#live")
    page.get_by_role("button", name="Hold").click()
    place.decide("after-holding")
    page.wait_for_timeout(1_000)
    assert "after-holding" not in page.inner_text("#live")
    expect(page.get_by_role("button", name="Go on")).to_be_visible()


def test_what_somebody_opened_or_held_stays_so_when_the_page_renews_itself(
    page: Page, place: Place
) -> None:
    page.goto(f"{place.url}/tasks/intents")
    page.get_by_text("The days as a table").click()
    page.get_by_role("button", name="Hold").click()
    found = re.search(r"(\d+) audits", page.locator("#task .tiles").inner_text())
    assert found
    version = place.registry.active("intents").version or ""
    place.registry.record_audits("intents", version, 3, [(1, True), (2, True)])
    page.evaluate("document.getElementById('task').dispatchEvent(new Event('tracer:refresh'))")
    expect(page.locator("#task .tiles")).to_contain_text(f"{int(found[1]) + 2} audits")
    expect(page.get_by_role("region", name="Days")).to_be_visible()
    expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-chart=days] canvas")).to_be_visible()


# --- why this one?


def test_a_text_is_explained_by_keyboard_alone(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/tickets")
    page.get_by_role("button", name="Explain a text").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Why this one?")).to_be_visible()
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_be_focused()
    page.keyboard.type("the courier charged my card, write to bob@example.org")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Explain", exact=True)).to_be_focused()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    answer = page.locator("#answer-title")
    expect(answer).to_be_focused()  # so that a screen reader begins there
    expect(answer).to_contain_text("Deferred to the teacher")
    stages = page.get_by_role("region", name="Stages").locator("tbody tr")
    expect(stages).to_have_count(2)
    expect(stages.first).to_contain_text("lexical")
    expect(stages.last).to_contain_text("semantic")
    expect(page.get_by_role("heading", name="What would have made it handled")).to_be_visible()
    expect(page.locator(".words")).to_contain_text("courier")
    page.get_by_text("The words as a table").click()
    assert page.get_by_role("region", name="Words").locator("tbody tr").count() >= 2
    for side in ("handled", "deferred"):
        near = page.get_by_role("region", name=f"Traces near it, {side}")
        expect(near.locator("tbody tr").first).to_contain_text("[EMAIL]")
    assert "ann@example.org" not in page.content()  # stored before anybody redacted
    expect(page.get_by_text("Personal data in the text was replaced")).to_be_visible()
    assert page.url.endswith("/tasks/tickets/explain")  # no text in an address


def test_what_a_version_is_sure_of_is_handled(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/tickets/explain")
    page.get_by_role("textbox", name="Text", exact=True).fill("invoice charged payment receipt")
    page.get_by_role("button", name="Explain", exact=True).click()
    expect(page.locator("#answer-title")).to_contain_text("Handled")
    expect(page.locator("#answer-title")).to_contain_text("billing")
    expect(page.get_by_role("heading", name="What would have made it")).to_have_count(0)


def test_from_a_decision_as_it_happens_to_why(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/tickets")
    rows = page.locator("#live tbody tr")
    for attempt in range(40):  # the reader begins at the end, once it has joined
        place.ask(f"muddle-{attempt}", "parcel invoice of carl@example.org")
        page.wait_for_timeout(250)
        if rows.count():
            break
    # The request whose decision is shown first may have gone by before the reader began.
    place.ask("the-one", "parcel invoice of carl@example.org")
    page.get_by_role("link", name="Why was the-one decided so?").click()
    expect(page.get_by_role("heading", name="What was decided")).to_be_visible()
    expect(page.locator("dl.facts")).to_contain_text("Not sure enough: ")
    expect(page.locator("#answer-title")).to_be_visible()
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value(
        "parcel invoice of [EMAIL]"
    )
    assert "carl@example.org" not in page.content()
    page.goto(f"{place.url}/tasks/tickets/explain?id=long-ago")
    expect(page.get_by_role("alert")).to_contain_text("long-ago is not at hand")


def test_what_cannot_be_explained_says_why(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/routing/explain")  # nothing was ever published
    page.get_by_role("textbox", name="Text", exact=True).fill("anything")
    page.get_by_role("button", name="Explain", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("routing has no active version")
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("anything")


# --- acting


def test_pause_and_resume_with_who_and_why(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/support")
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert place.registry.active("support").state is State.SERVING
    page.get_by_role("button", name="Pause…").click()
    confirm(page, "Pause", "a new prompt goes live")
    expect(page.get_by_role("status").first).to_contain_text("Paused")
    assert place.registry.active("support").state is State.PAUSED
    newest = page.locator(".timeline li").first
    expect(newest).to_contain_text("a new prompt goes live")
    expect(newest).to_contain_text("by maria")
    expect(page.get_by_role("button", name="Pause…")).to_have_count(0)
    page.get_by_role("button", name="Resume…").click()
    confirm(page, "Resume", "the prompt is fine")
    expect(page.get_by_role("heading", name="support")).to_contain_text("Serving")
    kinds = [entry.kind for entry in place.registry.history("support", 2)]
    assert kinds == [AnnouncementKind.RESUMED, AnnouncementKind.PAUSED]
    assert place.registry.history("support", 1)[0].actor == "maria"


def test_roll_back_to_a_version_of_ones_choice(page: Page, place: Place) -> None:
    first, second = place.versions["moderation"]
    page.goto(f"{place.url}/tasks/moderation")
    page.get_by_role("button", name="Roll back…").click()
    page.get_by_label("Version to return to").select_option(first)
    confirm(page, "Roll back", "the new one is too bold")
    expect(page.get_by_role("status").first).to_contain_text(f"Rolled back: {first}")
    assert place.registry.active("moderation").version == first
    # A form that was opened before somebody else acted changes nothing.
    page.get_by_role("button", name="Roll back…").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    place.registry.rollback("moderation", to=second, at=datetime.now(UTC), reason="meanwhile")
    confirm(page, "Roll back", "on what was there")
    expect(page.get_by_role("status").first).to_contain_text("Nothing was changed")
    assert place.registry.active("moderation").version == second


def test_a_trial_is_promoted(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/intents")
    expect(page.locator(".lead")).to_contain_text("On trial (canary, 10% of the requests)")
    page.get_by_role("button", name="Promote…").click()
    confirm(page, "Promote", "audits are good")
    expect(page.get_by_role("status").first).to_contain_text("Promoted")
    assert place.registry.active("intents").version == place.versions["intents"][-1]


def test_alpha_is_changed_with_the_frontiers_answer_before_it(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/support")
    page.get_by_role("button", name="Change α…").click()
    field = page.get_by_label("Agreement to ask for")
    expect(page.locator("#alpha-answer")).to_contain_text("about 79.3% of the requests")
    field.fill("0.98")
    expect(page.locator("#alpha-answer")).to_contain_text("about 47.6% of the requests; until a")
    confirm(page, "Change α", "the auditors ask for more")
    expect(page.get_by_role("status").first).to_contain_text("Another α: 0.98")
    expect(page.get_by_role("heading", name="support")).to_contain_text("Refitting")
    assert place.registry.alpha("support") == 0.98
    page.get_by_role("button", name="Change α…").click()
    page.get_by_label("Agreement to ask for").fill("")
    confirm(page, "Change α", "they do not any more")
    expect(page.get_by_role("heading", name="support")).to_contain_text("Serving")
    assert place.registry.alpha("support") is None


def test_dead_letters_are_put_back_once(page: Page, place: Place) -> None:
    page.get_by_role("link", name="Dead letters").click()
    letters = page.get_by_role("region", name="Dead letters").locator("tbody tr")
    expect(letters).to_have_count(3)
    expect(letters.first).to_contain_text("Expected `str` of length >= 1")
    letters.first.get_by_role("checkbox").check()
    page.get_by_role("button", name="Put the chosen back…").click()
    expect(page.get_by_role("heading", name="Put 1 letter back?")).to_be_visible()
    with page.expect_navigation():
        page.get_by_role("button", name="Put back").click()
    expect(page.get_by_role("status").first).to_contain_text("1 put back.")
    for _ in range(40):  # the marker comes by the topic
        page.reload()
        if "by maria" in letters.first.inner_text():
            break
        page.wait_for_timeout(250)
    expect(letters.first).to_contain_text("by maria")
    expect(letters.first.get_by_role("checkbox")).to_be_disabled()


def test_the_fleet_says_who_is_behind(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/fleet")
    if page.get_by_role("heading", name="No router runs").count():  # the beats expired
        expect(page.get_by_text("start python -m services.router.main")).to_be_visible()
    place.beat()
    page.reload()
    rows = page.get_by_role("region", name="Routers").locator("tbody tr")
    expect(rows.nth(1)).to_contain_text("Behind")
    expect(rows.nth(1)).to_contain_text("support")


def test_everything_can_be_done_by_keyboard(page: Page, place: Place) -> None:
    page.goto(f"{place.url}/tasks/support")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.locator("#do-retire").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("textbox", name="Why")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#do-retire")).to_be_focused()


# --- who may what


def test_read_only_sees_all_and_changes_nothing(new_context: Open, place: Place) -> None:
    page = new_context().new_page()
    sign_in(page, f"{place.url}/tasks/support", READER)
    expect(page.get_by_text("Read-only")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("…$"))).to_have_count(0)
    before = place.registry.active("support")
    answer = page.request.post(
        f"{place.url}/tasks/support/actions/retire", form={"reason": "because", "csrf": "guessed"}
    )
    assert answer.status == 403
    assert "read-only" in answer.text()
    assert place.registry.active("support") == before


def test_a_tenant_sees_its_tasks_only(new_context: Open, place: Place) -> None:
    page = new_context().new_page()
    sign_in(page, place.url, TENANT)
    expect(page.locator("#task-support")).to_be_visible()
    assert page.locator("tbody tr").count() == 1
    for path in ("/tasks/intents", "/api/v1/tasks/intents", "/api/v1/tasks/intents/live",
                 "/tasks/intents/actions/pause"):  # fmt: skip
        answer = page.request.get(f"{place.url}{path}")
        assert answer.status == 404, path
        assert "intents" not in answer.text() or "no task" in answer.text()
    shown = page.request.get(f"{place.url}/api/v1/tasks").json()
    assert [row["task"] for row in shown["tasks"]] == ["support"]


def test_on_this_machine_nobody_has_to_sign_in(new_context: Open, open_console: str) -> None:
    page = new_context().new_page()
    page.goto(open_console)
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
    foreign = page.request.get(open_console, headers={"Host": "rebound.example.com"})
    assert foreign.status == 403
