"""Signing in at an identity provider, in a real browser: the provider's pages, the console's and
what goes between the two are real HTTP. The provider is another site (localhost, not 127.0.0.1), so
the way back is one between sites."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import Open
from playwright.sync_api import Page, expect
from test_looks import PICTURES, grave

from services.ctl.embedded.ports import free_port
from tests.console_place import Place
from tests.oidc_issuer import CLIENT, SECRET, Issuer

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def url(place: Place, issuer: Issuer) -> Iterator[str]:
    """A console at which one signs in there, and in no other way."""
    port = free_port()
    child = place.start_console(
        "console-oidc", port, TRACER_OIDC_ISSUER=issuer.url, TRACER_OIDC_CLIENT_ID=CLIENT,
        TRACER_OIDC_CLIENT_SECRET=SECRET, TRACER_CONSOLE_URL=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    child.terminate(5.0)


def signed_in(page: Page, url: str, who: str) -> None:
    """From the page one wanted to see, by way of the provider, back to it."""
    page.goto(url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Token")).to_have_count(0)
    page.get_by_role("button", name="Sign in with your organisation").click()
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
    assert page.url.startswith("http://localhost:")
    page.get_by_role("link", name=who, exact=True).click()


def test_an_operator_comes_back_to_where_they_wanted_to_go(
    new_context: Open, issuer: Issuer, url: str
) -> None:
    page = new_context(viewport={"width": 1440, "height": 900}).new_page()
    signed_in(page, f"{url}/tasks/support", "maria")
    expect(page).to_have_url(f"{url}/tasks/support")
    expect(page.locator(".who .name")).to_have_text("maria@example.org")
    expect(page.get_by_role("button", name=re.compile("…$")).first).to_be_visible()  # may act
    assert {"/.well-known/openid-configuration", "/authorize", "/token", "/keys"} <= set(
        issuer.asked
    )
    assert issuer.refused == []
    # The claim names one task: the others do not exist for her.
    page.goto(url)
    expect(page.locator("#task-support")).to_be_visible()
    assert page.locator("tbody tr").count() == 1
    assert page.request.get(f"{url}/tasks/intents").status == 404
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{url}/tasks/support")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_without_the_role_one_only_looks(new_context: Open, url: str) -> None:
    page = new_context().new_page()
    signed_in(page, f"{url}/tasks/intents", "rosa")
    expect(page).to_have_url(f"{url}/tasks/intents")
    expect(page.get_by_text("Read-only")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("…$"))).to_have_count(0)


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("stranger", "stranger@example.org may see no task: the provider must send the claim"),
        ("nobody", "the provider refused: access_denied"),
    ],
)
def test_who_may_not_in_is_told_why_and_may_try_again(
    new_context: Open, url: str, who: str, said: str
) -> None:
    page = new_context().new_page()
    signed_in(page, f"{url}/tasks/support", who)
    expect(page.get_by_role("alert")).to_contain_text(said)
    assert grave(page) == []
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign in with your organisation")).to_be_visible()


def test_the_page_people_sign_in_on(new_context: Open, url: str) -> None:
    for scheme, name, width in (("light", "wide", 1440), ("dark", "narrow", 360)):
        page = new_context(
            viewport={"width": width, "height": 340},
            color_scheme=scheme,
        ).new_page()
        page.goto(url)
        expect(page.get_by_role("button", name="Sign in with your organisation")).to_be_visible()
        assert grave(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"console-sign-in-{scheme}-{name}.png")
