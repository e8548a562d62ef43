"""Signing in at a provider: bad answers by a double of its HTTP, with real keys; and the whole
exchange with one over real HTTP (`tests/browser/test_oidc.py` has it in a browser)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from console_desk import Desk
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from pydantic import ValidationError
from starlette.testclient import TestClient

from services.console.config import ConsoleSettings
from services.console.oidc import Provider, SignInFailed
from shared.clock import FakeClock, SystemClock
from shared.http.tokens import Tokens
from tests.oidc_issuer import CLIENT, SECRET, Issuer

ISSUER = "https://id.example.com/realm"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "two"})

Claims = dict[str, Any]


class Idp:
    """What a provider does. `claims` are added to those of an ID token; None takes one away."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.claims: Claims = {}
        self.key: Any = KEY
        self.sign: Callable[[Claims], str] = self._signed
        self.published = KeySet([KEY])
        self.challenge = self.nonce = ""
        self.away = False
        self.asked = 0

    def provider(self) -> Provider:
        return Provider(
            issuer=ISSUER, client_id="console", client_secret="secret-of-the-client",
            redirect_uri="http://localhost/sign-in/answer", scope="openid", clock=self.clock,
            tasks_claim="tracer_tasks", role_claim="tracer_role",
            client=httpx.Client(transport=httpx.MockTransport(self.answer)),
        )  # fmt: skip

    def sent_to(self, location: str) -> dict[str, str]:
        """What the browser brings along, remembered as a provider does."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert location.startswith(f"{ISSUER}/authorize?")
        assert query["code_challenge_method"] == "S256"
        self.challenge, self.nonce = query["code_challenge"], query["nonce"]
        return query

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("no route")
        path = request.url.path
        if path.endswith("/.well-known/openid-configuration"):
            return httpx.Response(200, json={
                "issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/authorize",
                "token_endpoint": f"{ISSUER}/token", "jwks_uri": f"{ISSUER}/keys",
            })  # fmt: skip
        if path.endswith("/keys"):
            return httpx.Response(200, json=self.published.as_dict(private=False))
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        proof = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(proof).rstrip(b"=").decode() != self.challenge:
            return httpx.Response(400, json={"error": "invalid_grant"})
        assert request.headers["authorization"].startswith("Basic ")
        return httpx.Response(200, json={"id_token": self.token(), "access_token": "x"})

    def token(self) -> str:
        now = int(self.clock.now().timestamp())
        claims: Claims = {
            "iss": ISSUER, "aud": "console", "sub": "42", "email": "maria@example.com",
            "iat": now, "exp": now + 300, "nonce": self.nonce, "tracer_tasks": ["support"],
            "tracer_role": "operator",
        }  # fmt: skip
        claims = {k: v for k, v in (claims | self.claims).items() if v is not None}
        return self.sign(claims)

    def _signed(self, claims: Claims) -> str:
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)


def by_hand(algorithm: str, claims: Claims, secret: bytes | None) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": algorithm, "kid": "one"}).encode())
    signed = f"{head}.{part(json.dumps(claims).encode())}"
    mac = hmac.digest(secret, signed.encode(), "sha256") if secret else b""
    return f"{signed}.{part(mac)}"


@pytest.fixture
def idp() -> Idp:
    return Idp()


def browse(idp: Idp, then: str = "/tasks/support") -> tuple[TestClient, httpx.Response]:
    """Go through it as a browser does; the console's answer to the provider's redirect."""
    desk = Desk(tokens=Tokens(), provider=idp.provider())
    client = desk.client()
    there = client.get(f"/sign-in/provider?then={then}")
    assert there.status_code == 303
    state = idp.sent_to(there.headers["location"])["state"]
    return client, client.get(f"/sign-in/answer?code=abc&state={state}")


def test_who_signs_in_sees_their_tasks_and_may_act(idp: Idp) -> None:
    client, answer = browse(idp)
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks/support")
    page = client.get("/tasks/support")
    assert "maria@example.com" in page.text
    assert "do-pause" in page.text
    assert client.get("/tasks/intents").status_code == 404


def test_without_the_role_one_only_looks(idp: Idp) -> None:
    idp.claims = {"tracer_role": None, "tracer_tasks": "*"}
    client, _ = browse(idp)
    assert "Read-only" in client.get("/tasks/intents").text


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["console", "another"]}, "aud"),  # without azp
        ({"exp": 1}, "exp"),
        ({"exp": None}, "exp"),
        ({"nonce": "of-another-sign-in"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"tracer_tasks": None}, "may see no task"),
        ({"tracer_tasks": []}, "may see no task"),
        ({"tracer_tasks": 7}, "may see no task"),
    ],
)
def test_a_token_that_is_not_for_us_now_lets_nobody_in(idp: Idp, claims: Claims, why: str) -> None:
    idp.claims = claims
    client, answer = browse(idp)
    assert answer.status_code == 401
    assert why in answer.text
    assert client.get("/").status_code == 303


def _another_key(idp: Idp) -> None:
    idp.key = RSAKey.generate_key(2048, {"kid": "one"})


def _public_key_as_secret(idp: Idp) -> None:
    """By hand: no library signs with this."""
    idp.sign = lambda claims: by_hand("HS256", claims, KEY.as_pem(private=False))


def _no_signature(idp: Idp) -> None:
    idp.sign = lambda claims: by_hand("none", claims, None)


@pytest.mark.parametrize("forge", [_another_key, _public_key_as_secret, _no_signature])
def test_a_forged_signature_lets_nobody_in(idp: Idp, forge: Callable[[Idp], None]) -> None:
    forge(idp)
    _, answer = browse(idp)
    assert answer.status_code == 401
    assert "signature" in answer.text


def test_a_new_key_of_the_provider_is_fetched(idp: Idp) -> None:
    provider = idp.provider()

    def person() -> str:
        location, kept = provider.begin("/")
        state = idp.sent_to(location)["state"]
        return provider.finish(code="c", state=state, kept=kept).name

    assert person() == "maria@example.com"
    idp.key, idp.published = OTHER_KEY, KeySet([OTHER_KEY])
    assert person() == "maria@example.com"


def test_an_answer_to_another_sign_in_is_refused(idp: Idp) -> None:
    provider = idp.provider()
    location, kept = provider.begin("/")
    idp.sent_to(location)
    with pytest.raises(SignInFailed, match="another sign-in"):
        provider.finish(code="c", state="guessed", kept=kept)
    client = Desk(tokens=Tokens(), provider=provider).client()
    assert client.get("/sign-in/answer?code=abc&state=x").status_code == 401  # without the cookie


def test_a_stolen_code_is_of_no_use(idp: Idp) -> None:
    """PKCE: the code is good only with the verifier that is in the cookie of who began."""
    provider = idp.provider()
    idp.sent_to(provider.begin("/")[0])
    location, kept = provider.begin("/")
    state = parse_qs(urlsplit(location).query)["state"][0]
    with pytest.raises(SignInFailed, match="400 at /realm/token"):
        provider.finish(code="of the first", state=state, kept=kept)


def test_a_provider_that_is_away_is_said_without_secrets(idp: Idp) -> None:
    idp.away = True
    desk = Desk(tokens=Tokens(), provider=idp.provider())
    answer = desk.client().get("/sign-in/provider")
    assert answer.status_code == 401
    assert "cannot be asked" in answer.text
    assert "secret-of-the-client" not in answer.text + repr(idp.provider())


def test_a_stranger_keeps_nobody_from_signing_in(idp: Idp) -> None:
    """Behind a proxy both have its address."""
    desk = Desk(tokens=Tokens(), provider=idp.provider())
    stranger, maria = desk.client(), desk.client()
    for _ in range(50):
        assert stranger.get("/sign-in/provider").status_code == 303
    assert maria.get("/sign-in/provider").status_code == 303
    assert idp.asked == 1


def test_a_provider_that_is_away_is_asked_once_a_second(idp: Idp) -> None:
    idp.away = True
    desk = Desk(tokens=Tokens(), provider=idp.provider())
    client = desk.client()
    for _ in range(5):
        answer = client.get("/sign-in/provider")
        assert answer.status_code == 401
        assert "cannot be asked" in answer.text
    assert idp.asked == 1
    idp.away = False
    idp.clock.sleep(1.0)
    assert client.get("/sign-in/provider").status_code == 303
    assert idp.asked == 2


# --- over real HTTP


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_the_exchange_over_http(method: str) -> None:
    """In the way of proving oneself that the provider's description names."""
    with Issuer(method=method, host="127.0.0.1") as issuer, httpx.Client() as browser:
        provider = Provider(
            issuer=issuer.url, client_id=CLIENT, client_secret=SECRET, scope="openid",
            redirect_uri="http://localhost/sign-in/answer", clock=SystemClock(),
            tasks_claim="tracer_tasks", role_claim="tracer_role",
        )  # fmt: skip
        location, kept = provider.begin("/")
        assert "Who are you?" in browser.get(location).text
        chosen = browser.get(f"{location}&who=maria").headers["location"]
        back = {name: values[0] for name, values in parse_qs(urlsplit(chosen).query).items()}
        person = provider.finish(code=back["code"], state=back["state"], kept=kept)
        assert (person.name, person.tasks) == ("maria@example.org", ("support",))
        assert not person.read_only
        assert issuer.refused == []
        with pytest.raises(SignInFailed, match="400 at /realms/shop/token"):  # a code is good once
            provider.finish(code=back["code"], state=back["state"], kept=kept)
        provider.client.close()


def test_a_client_that_the_provider_does_not_know_is_told_so() -> None:
    with Issuer(host="127.0.0.1") as issuer, httpx.Client() as browser:
        provider = Provider(
            issuer=issuer.url, client_id=CLIENT, client_secret="of-another", scope="openid",
            redirect_uri="http://localhost/sign-in/answer", clock=SystemClock(),
            tasks_claim="tracer_tasks", role_claim="tracer_role",
        )  # fmt: skip
        location, kept = provider.begin("/")
        chosen = browser.get(f"{location}&who=maria").headers["location"]
        code = parse_qs(urlsplit(chosen).query)["code"][0]
        with pytest.raises(SignInFailed, match="401 at /realms/shop/token") as failed:
            provider.finish(code=code, state=kept["state"], kept=kept)
        assert issuer.refused == ["client"]
        assert "of-another" not in str(failed.value)
        provider.client.close()


# --- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"console_host": "0.0.0.0"}, "TRACER_CONSOLE_TOKEN"),
        ({"console_token": "short"}, "less than 16"),
        ({"console_secret": "short"}, "less than 32"),
        ({"console_url": "tracer.example.com"}, "must be like"),
        ({"oidc_issuer": ISSUER}, "TRACER_OIDC_CLIENT_ID"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_client_secret": "s"},
         "TRACER_CONSOLE_URL"),
        ({"oidc_issuer": "http://id.example.com", "oidc_client_id": "c",
          "oidc_client_secret": "s", "console_url": "https://tracer.example.com"}, "https://"),
        ({"console_tokens": '[{"name": "a", "token": "short"}]'}, "less than 16"),
        ({"console_token": "x" * 16,
          "console_tokens": f'[{{"name": "token", "token": "{"y" * 16}"}}]'}, "entry 'token'"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_name_the_fix(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        ConsoleSettings(**settings)  # type: ignore[arg-type]
    assert "short" not in str(refused.value)


def test_a_token_or_a_provider_opens_the_console_to_others() -> None:
    with_token = ConsoleSettings(console_host="0.0.0.0", console_token="x" * 16)
    assert not with_token.open_to_this_machine
    with_provider = ConsoleSettings(
        console_host="0.0.0.0", oidc_issuer=ISSUER, oidc_client_id="c", oidc_client_secret="s",
        console_url="https://tracer.example.com",
    )  # fmt: skip
    assert not with_provider.open_to_this_machine
    assert "s'" not in str(with_provider.describe()["oidc_client_secret"])
    assert ConsoleSettings().open_to_this_machine
