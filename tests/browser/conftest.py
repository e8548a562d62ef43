"""A real browser against real services. Skipped, with a reason, where there is no Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from services.ctl.embedded.ports import free_port
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from tests.console_place import OPERATOR, ROOT, Place, tokens

CHROMIUM = os.environ.get("TRACER_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
LOCAL_SCHEMES = ("data", "blob", "about")
LOCAL_HOSTS = ("127.0.0.1", "localhost")  # the second is where an identity provider is, if any

# Opens a context; keywords are Playwright's.
Open = Callable[..., BrowserContext]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"no {CHROMIUM}: `make chromium` installs Debian's")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def place(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With tokens; after `browser`, so that nothing is started where that is missing."""
    folder = Path(tmp_path_factory.mktemp("console"))
    with Place(folder, TRACER_CONSOLE_TOKENS=tokens()) as started:
        started.seed_a_model(OnnxEncoder(ensure_default_encoder(ROOT / ".cache" / "encoder")))
        yield started


@pytest.fixture(scope="session")
def open_console(place: Place) -> Iterator[str]:
    """A second console of the same tasks, where nobody has to sign in."""
    port = free_port()
    child = place.start_console("console-open", port)
    yield f"http://127.0.0.1:{port}"
    child.terminate(5.0)


@pytest.fixture
def new_context(browser: Browser) -> Iterator[Open]:
    """Contexts in which a request to another host, a script's error or a refusal by the content
    security policy fails the test."""
    opened: list[BrowserContext] = []
    wrong: list[str] = []

    def watch(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.hostname not in LOCAL_HOSTS and parts.scheme not in LOCAL_SCHEMES:
            wrong.append(f"asked for {request.url}")

    def new(**options: object) -> BrowserContext:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        context.on("request", watch)
        context.on("weberror", lambda error: wrong.append(f"script failed: {error.error}"))
        context.on(
            "console",
            lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None,
        )
        context.route(
            lambda url: urlsplit(url).hostname not in (*LOCAL_HOSTS, None),
            lambda route: route.abort(),
        )
        opened.append(context)
        return context

    yield new
    for context in opened:
        context.close()
    assert not wrong


def sign_in(page: Page, url: str, token: str = OPERATOR) -> None:
    page.goto(url)
    page.get_by_label("Token").fill(token)
    with page.expect_navigation():  # scripts are there once it has loaded
        page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def page(new_context: Open, place: Place) -> Page:
    """An operator's, signed in, on the overview."""
    page = new_context(viewport={"width": 1440, "height": 900}).new_page()
    sign_in(page, place.url)
    page.get_by_role("heading", name="Tasks").wait_for()
    return page
