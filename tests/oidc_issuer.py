"""An OpenID Connect provider on this machine, over real HTTP: discovery, a page to choose who one
is, codes good once and with their PKCE verifier, ID tokens signed with a key of its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "tracer-console", "client-secret-0123456789"
# Who may be chosen, and what their ID token says of them.
PEOPLE: dict[str, dict[str, Any]] = {
    "maria": {"email": "maria@example.org", "tracer_tasks": ["support"], "tracer_role": "operator"},
    "rosa": {"email": "rosa@example.org", "tracer_tasks": "*"},
    "stranger": {"email": "stranger@example.org"},
}


@dataclass
class Issuer:
    """`url` is the issuer; `method` how clients prove themselves at the token endpoint. `asked`:
    paths that were asked for, `refused`: why a token was not given."""

    method: str = "client_secret_basic"
    host: str = "localhost"
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _codes: dict[str, tuple[dict[str, str], str]] = field(default_factory=dict)
    _key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))

    def __enter__(self) -> Self:
        issuer = self

        class Handler(_Handler):
            of = issuer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://{self.host}:{self._server.server_address[1]}/realms/shop"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": [self.method],
        }

    def keys(self) -> dict[str, Any]:
        return dict(KeySet([self._key]).as_dict(private=False))

    def choose(self, query: dict[str, str]) -> str:
        """The page on which one says who one is."""
        links = "".join(
            f'<p><a href="?{html.escape(urlencode(query | {"who": who}))}">{who}</a></p>'
            for who in (*PEOPLE, "nobody")
        )
        return f"<!doctype html><title>Who are you?</title><h1>Who are you?</h1>{links}"

    def sent_back(self, query: dict[str, str]) -> str:
        """The console's address, with a code, or with the word that somebody would not."""
        answer = {"state": query["state"]}
        if query["who"] == "nobody":
            answer |= {"error": "access_denied"}
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = (query, query["who"])
            answer |= {"code": code}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, str]]:
        query, who = self._codes.pop(form.get("code", ""), ({}, ""))
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        proof = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        by_post = (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        wrong = {
            "client": not (
                authorization == f"Basic {basic}"
                if self.method == "client_secret_basic"
                else by_post and not authorization
            ),
            "code": not who,
            "grant": form.get("grant_type") != "authorization_code",
            "address": form.get("redirect_uri") != query.get("redirect_uri"),
            "verifier": base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
            != query.get("code_challenge"),
        }
        found = [name for name, bad in wrong.items() if bad]
        if found:
            self.refused += found
            return 401 if wrong["client"] else 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": who, "iat": now, "exp": now + 300,
            "nonce": query["nonce"],
        } | PEOPLE[who]  # fmt: skip
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self._key)
        return 200, {"id_token": signed, "access_token": "unused", "token_type": "Bearer"}


class _Handler(BaseHTTPRequestHandler):
    of: Issuer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/realms/shop")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.of.asked.append(path)
        if path == "/.well-known/openid-configuration":
            self._json(200, self.of.description())
        elif path == "/keys":
            self._json(200, self.of.keys())
        elif path == "/authorize" and "who" in query:
            self._answer(302, b"", "text/plain", location=self.of.sent_back(query))
        elif path == "/authorize" and query.get("client_id") == CLIENT:
            self._answer(200, self.of.choose(query).encode(), "text/html; charset=utf-8")
        else:
            self._json(404, {"error": "nothing here"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.of.asked.append(urlsplit(self.path).path.removeprefix("/realms/shop"))
        self._json(*self.of.token(form, self.headers.get("authorization", "")))

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: what was asked is in `asked`."""

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("location", location)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
