"""What stands before every HTTP door, called as ASGI servers call it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.clock import FakeClock
from shared.http.access import caller_of, protect
from shared.http.loopback import is_loopback, name_of
from shared.http.rate import RateLimiter, address_key
from shared.http.tokens import (
    InvalidTokens,
    Tokens,
    check_not_open,
    digest_of,
    one_token,
    read_tokens,
)

ACME, OPS = "acme-token-0123456789", "ops-token-0123456789"
SEVERAL = json.dumps(
    [
        {"name": "acme", "token": ACME, "tasks": ["support"], "rate": 2},
        {"name": "ops", "sha256": digest_of(OPS).hex()},
    ]
)


async def whoami(request: Request) -> Response:
    caller = caller_of(request.scope)
    tasks = None if caller.tasks is None else sorted(caller.tasks)
    body = await request.body()
    return JSONResponse({"name": caller.name, "tasks": tasks, "bytes": len(body)})


async def styled(request: Request) -> Response:
    return Response("x", headers={"Cache-Control": "max-age=60"})


class Server:
    def __init__(self, tokens: Tokens, *, rate: float = 100.0, max_body: int = 100) -> None:
        self.clock = FakeClock()
        inner = Starlette(
            routes=[Route("/", whoami, methods=["GET", "POST"]), Route("/styled", styled)],
            exception_handlers={500: lambda request, error: Response("failed", 500)},
        )
        self.app = protect(
            inner, tokens=tokens, clock=self.clock, setting="TRACER_X_TOKEN", rate=rate,
            max_body=max_body,
        )  # fmt: skip

    def call(
        self,
        token: str | None = None,
        *,
        method: str = "POST",
        path: str = "/",
        content: object = b"",
        host: str = "localhost",
        address: str = "192.0.2.1",
        **more: str,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, content=content, headers=headers)  # type: ignore[arg-type]

        return asyncio.run(go())


def test_a_token_says_who_calls_and_which_tasks_they_see() -> None:
    server = Server(read_tokens(SEVERAL, "TRACER_X_TOKENS"))
    assert server.call(ACME).json() == {"name": "acme", "tasks": ["support"], "bytes": 0}
    assert server.call(OPS).json() == {"name": "ops", "tasks": None, "bytes": 0}
    for wrong in (None, "", ACME[:-1], ACME + "x", ACME.upper(), digest_of(OPS).hex()):
        answer = server.call(wrong)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["fix"] == "send Authorization: Bearer <token>"


def test_without_tokens_only_calls_to_localhost_are_answered() -> None:
    server = Server(Tokens())
    assert server.call().json()["name"] == "local"
    refused = server.call(host="evil.example")
    assert refused.status_code == 403
    assert "TRACER_X_TOKEN" in refused.json()["error"]["fix"]


def test_each_token_has_its_own_rate() -> None:
    server = Server(read_tokens(SEVERAL, "TRACER_X_TOKENS"), rate=1.0)
    acme = [server.call(ACME).status_code for _ in range(6)]
    assert acme == [200] * 4 + [429] * 2  # twice its rate of 2 at once
    assert [server.call(OPS).status_code for _ in range(3)] == [200, 200, 429]
    server.clock.sleep(0.5)
    assert server.call(ACME).status_code == 200
    again = server.call(ACME)
    assert again.status_code == 429
    assert again.headers["Retry-After"] == "1"


def test_a_stranger_who_guesses_is_slowed_and_shuts_nobody_out() -> None:
    server = Server(one_token(OPS, "T"))
    said = [server.call(f"guess-{n:020}").status_code for n in range(25)]
    assert said == [401] * 20 + [429] * 5
    assert server.call(OPS).status_code == 200  # from the same address
    assert server.call("guess", address="192.0.2.2").status_code == 401


def test_no_header_gives_a_stranger_another_address() -> None:
    server = Server(one_token(OPS, "T"))
    said = [
        server.call(
            "guess", X_Forwarded_For=f"203.0.113.{n}", X_Real_IP=f"203.0.113.{n}",
            Forwarded=f"for=203.0.113.{n}",
        ).status_code
        for n in range(25)
    ]  # fmt: skip
    assert said == [401] * 20 + [429] * 5


def test_a_body_whose_end_can_be_told_in_two_ways_is_refused() -> None:
    """A proxy that goes by the other one takes the rest for a call of its own."""
    server = Server(Tokens())
    answer = server.call(content=b"0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="5")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "both Transfer-Encoding and Content-Length"
    assert answer.headers["connection"] == "close"


def test_a_body_too_large_is_refused_by_its_length_or_as_soon_as_more_came() -> None:
    server = Server(Tokens(), max_body=100)

    async def chunks() -> object:
        for _ in range(11):
            yield b"0123456789"

    assert server.call(content=b"x" * 100).json()["bytes"] == 100
    for content in (b"x" * 101, chunks()):
        answer = server.call(content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["message"] == "the body has more than 100 bytes"
        assert answer.headers["connection"] == "close"


def test_every_answer_carries_the_headers_that_keep_browsers_out() -> None:
    server = Server(one_token(OPS, "T"))
    for answer in (server.call(OPS), server.call("wrong"), server.call(OPS, path="/none")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
    own = server.call(OPS, method="GET", path="/styled")
    assert own.headers.get_list("Cache-Control") == ["max-age=60"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "Expected `array`"),
        ("[", "give"),
        ('[{"name": "a"}]', "a needs a token or a sha256"),
        (f'[{{"name": "a", "token": "{ACME}", "sha256": "{"0" * 64}"}}]', "not both"),
        ('[{"name": "a", "token": "short"}]', "less than 16"),
        (f'[{{"name": "a b", "token": "{ACME}"}}]', "name"),
        (f'[{{"name": "a", "token": "{ACME}", "task": ["x"]}}]', "task"),
        (f'[{{"name": "a", "token": "{ACME}"}}, {{"name": "b", "token": "{ACME}"}}]', "share"),
        (f'[{{"name": "a", "token": "{ACME}"}}, {{"name": "a", "token": "{OPS}"}}]', "share"),
        (f'[{{"name": "a", "token": "{ACME}", "rate": 0}}]', "rate"),
    ],
)
def test_a_list_of_tokens_that_cannot_be_used_says_what_to_mend(text: str, says: str) -> None:
    with pytest.raises(InvalidTokens, match=says) as error:
        read_tokens(text, "TRACER_X_TOKENS")
    assert "TRACER_X_TOKENS" in str(error.value)
    assert ACME not in str(error.value)


@pytest.mark.parametrize(("name", "token"), [("token", ACME), ("ops", OPS)])
def test_the_single_token_and_one_of_the_list_share_neither_name_nor_token(
    name: str, token: str
) -> None:
    """By a shared name, one tenant's session would be that of who may do everything."""
    listed = read_tokens(json.dumps([{"name": name, "token": token, "tasks": ["x"]}]), "T")
    with pytest.raises(InvalidTokens, match=f"entry '{name}'") as error:
        one_token(OPS, "T").joined(listed)
    assert token not in str(error.value)
    other = read_tokens(json.dumps([{"name": "acme", "token": ACME}]), "T")
    assert repr(one_token(OPS, "T").joined(other)) == "Tokens(token, acme)"


def test_tokens_are_never_shown() -> None:
    tokens = read_tokens(SEVERAL, "T")
    assert repr(tokens) == "Tokens(acme, ops)"
    assert not Tokens()
    assert not read_tokens("[]", "T")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "console.example", ""])
def test_a_door_that_others_reach_needs_tokens(host: str) -> None:
    with pytest.raises(ValueError, match=r"TRACER_X_HOST=.* can be reached by others: set T"):
        check_not_open(host, Tokens(), host_setting="TRACER_X_HOST", fix="set T")
    check_not_open(host, one_token(OPS, "T"), host_setting="TRACER_X_HOST", fix="set T")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_a_door_of_this_machine_does_not(host: str) -> None:
    check_not_open(host, Tokens(), host_setting="H", fix="set T")
    assert is_loopback(name_of(f"[{host}]:1" if ":" in host else f"{host}:1"))


@pytest.fixture
def limiter() -> RateLimiter:
    return RateLimiter(FakeClock(), rate=1.0, burst=2.0, max_keys=3)


def test_a_rate_limiter_forgets_who_was_there_longest_ago(limiter: RateLimiter) -> None:
    for key in "abcabc":
        assert limiter.take(key) == 0
    assert limiter.take("a") > 0
    assert limiter.take("d") == 0  # b, untouched longest, is forgotten
    assert len(limiter._buckets) == 3
    assert limiter.take("c") > 0


def test_a_rate_limiter_never_saves_up_more_than_its_burst(limiter: RateLimiter) -> None:
    limiter.clock.sleep(1e6)
    assert [limiter.take("a") > 0 for _ in range(3)] == [False, False, True]
    assert limiter.take("a") == pytest.approx(1.0)


def test_who_owns_a_network_is_one_client() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1")
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8::1")
    assert address_key("192.0.2.1") != address_key("192.0.2.2")
    assert len(address_key("x" * 1000)) == 64
