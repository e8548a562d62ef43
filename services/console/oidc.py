"""Signing in at an OpenID Connect provider: authorization code with PKCE, ID token checked here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from shared.clock import Clock

# Signatures only: a token "signed" with `none`, or with the public key as a secret, is refused.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "Ed25519", "EdDSA"]
LEEWAY_SECONDS = 60
_KNOWN_SECONDS = 3600.0
# A provider that could not be asked is left alone for so long, however many want to sign in.
_AGAIN_SECONDS = 1.0
_BASIC = "client_secret_basic"  # what holds where a provider does not say
OPERATOR = "operator"
_NAMES = ("email", "preferred_username", "name", "sub")


class SignInFailed(Exception):
    """The message says why, and what to do; it holds no token."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in. `tasks` None: all of them."""

    name: str
    tasks: tuple[str, ...] | None
    read_only: bool


@dataclass
class Provider:
    """One OpenID Connect provider. Its description and keys are fetched when needed, and kept."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    scope: str
    tasks_claim: str
    role_claim: str
    clock: Clock
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10.0), repr=False)
    _known: dict[str, Any] = field(default_factory=dict)
    _keys: KeySet | None = None
    _known_at: float = 0.0
    _trouble: str = ""
    _trouble_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self, then: str) -> tuple[str, dict[str, str]]:
        """Where to send the browser, and what to keep until it is back. Raises SignInFailed."""
        kept = {
            "state": secrets.token_urlsafe(24),
            "nonce": secrets.token_urlsafe(24),
            "verifier": secrets.token_urlsafe(48),
            "then": then,
        }
        challenge = hashlib.sha256(kept["verifier"].encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self.scope,
            "state": kept["state"],
            "nonce": kept["nonce"],
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = self._description()["authorization_endpoint"]
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", kept

    def finish(self, *, code: str, state: str, kept: dict[str, str]) -> Person:
        """Who it is. Raises SignInFailed."""
        if not hmac.compare_digest(state.encode(), kept["state"].encode()):
            raise SignInFailed("this answer belongs to another sign-in; try again")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": kept["verifier"],
        }
        known = self._description()
        proof: dict[str, Any] = {"auth": (self.client_id, self.client_secret)}
        if _BASIC not in known.get("token_endpoint_auth_methods_supported", [_BASIC]):
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
            proof = {}
        answer = self._ask("POST", known["token_endpoint"], data=form, **proof)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInFailed("the provider sent no ID token; is the scope `openid` allowed?")
        return self._person(self._checked(token, kept["nonce"]))

    def _checked(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that this provider made, for us, now, for this sign-in."""
        claims = self._signed_claims(token)
        now = self.clock.now().timestamp()
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        expires = claims.get("exp")
        good = {
            "iss": claims.get("iss") == self.issuer,
            "aud": self.client_id in audiences
            and (len(audiences) == 1 or claims.get("azp") == self.client_id),
            "exp": isinstance(expires, int | float) and now < expires + LEEWAY_SECONDS,
            "nonce": hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()),
        }
        bad = [name for name, fine in good.items() if not fine]
        if bad:
            raise SignInFailed(f"the ID token's {', '.join(bad)} is not as it must be")
        return claims

    def _signed_claims(self, token: str) -> dict[str, Any]:
        for fresh in (False, True):  # a key we do not know may be a new one
            try:
                return dict(
                    jwt.decode(token, self._key_set(fresh=fresh), algorithms=ALGORITHMS).claims
                )
            except (JoseError, ValueError) as error:
                if fresh:
                    raise SignInFailed(f"the ID token's signature is not good: {error}") from None
        raise AssertionError("unreachable")

    def _person(self, claims: dict[str, Any]) -> Person:
        name = next((str(claims[claim]) for claim in _NAMES if claims.get(claim)), "")
        given = claims.get(self.tasks_claim)
        tasks = given.split() if isinstance(given, str) else given
        if not name or not isinstance(tasks, list) or not tasks:
            raise SignInFailed(
                f"{name or 'this account'} may see no task: the provider must send the claim "
                f"`{self.tasks_claim}` with the tasks' names, or *"
            )
        roles = claims.get(self.role_claim)
        operator = OPERATOR in (roles if isinstance(roles, list) else [roles])
        everything = "*" in tasks
        return Person(name[:256], None if everything else tuple(map(str, tasks)), not operator)

    def _description(self) -> dict[str, Any]:
        with self._lock:
            if not self._known or self.clock.monotonic() - self._known_at > _KNOWN_SECONDS:
                if self._trouble and self.clock.monotonic() - self._trouble_at < _AGAIN_SECONDS:
                    raise SignInFailed(self._trouble)
                try:
                    known = self._discovered()
                except SignInFailed as error:
                    self._trouble, self._trouble_at = str(error), self.clock.monotonic()
                    raise
                self._known, self._known_at, self._keys = known, self.clock.monotonic(), None
            return self._known

    def _discovered(self) -> dict[str, Any]:
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        known = self._ask("GET", address)
        if known.get("issuer") != self.issuer:
            raise SignInFailed(f"{address} is of another issuer: check TRACER_OIDC_ISSUER")
        return known

    def _key_set(self, *, fresh: bool) -> KeySet:
        address = self._description()["jwks_uri"]
        with self._lock:
            if self._keys is None or fresh:
                self._keys = KeySet.import_key_set(self._ask("GET", address))  # type: ignore[arg-type]
            return self._keys

    def _ask(self, method: str, address: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self.client.request(method, address, **more)
            answer.raise_for_status()
            found = answer.json()
        except httpx.HTTPStatusError as error:
            raise SignInFailed(
                f"the provider answered {error.response.status_code} at {error.request.url.path}"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise SignInFailed(f"the provider cannot be asked: {type(error).__name__}") from None
        if not isinstance(found, dict):
            raise SignInFailed("the provider's answer is no JSON object")
        return found
