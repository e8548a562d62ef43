"""Which requests are audited or answered by a canary: by hash of the request id, so that a
redelivery chooses the same."""

from __future__ import annotations

import hashlib


def chosen(purpose: str, request_id: str, share: float) -> bool:
    """Whether the request is among a `share` of all; other purposes choose independently."""
    digest = hashlib.blake2b(
        request_id.encode(errors="surrogatepass"), digest_size=8, person=_person(purpose)
    ).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _person(purpose: str) -> bytes:
    """BLAKE2 takes 16 bytes that set one use of the hash apart from another."""
    return hashlib.blake2b(purpose.encode(), digest_size=16).digest()
