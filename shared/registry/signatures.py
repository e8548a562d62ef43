"""Ed25519 signatures over manifests (RFC 8032).

A manifest names the SHA-256 and the size of every blob, so that a signature over its bytes covers
the whole artifact. The bytes signed are those stored, never a new encoding of what they mean.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from shared.contracts.manifest import sha256

MAX_SIGNATURE_BYTES = 1024
# A signature made for this purpose is good for no other.
_PURPOSE = b"tracer manifest v1\0"


class InvalidKey(ValueError):
    """Not an Ed25519 key. The message never holds it."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Kept beside a manifest, as JSON. `key` says which key made it, by its fingerprint."""

    alg: Literal["ed25519"] = "ed25519"
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    sig: Annotated[str, Meta(max_length=88)]  # base64


class Signer:
    """Holds a private key; neither repr nor error shows it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()
        self.key_id = key_id(self.public)

    @classmethod
    def make(cls) -> Signer:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: str) -> Signer:
        """Raises InvalidKey."""
        # Here, because who only checks signatures, as routers do, need not load it.
        from cryptography.hazmat.primitives import serialization

        try:
            key = serialization.load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidKey("not a private key in PEM without a passphrase") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidKey("not an Ed25519 key; `tracerctl keys new` makes one")
        return cls(key)

    def pem(self) -> bytes:
        """The private key, PKCS 8. Keep it where only its user reads it."""
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, manifest: bytes) -> bytes:
        """A Signature, encoded. Equal manifests give equal bytes."""
        raw = self._key.sign(_PURPOSE + manifest)
        return msgspec.json.encode(
            Signature(key=self.key_id, sig=base64.b64encode(raw).decode("ascii"))
        )

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"


def key_id(public: bytes) -> str:
    """A key's name: the beginning of the SHA-256 of its 32 public bytes."""
    return sha256(public)[:16]


def read_signature(data: bytes) -> Signature:
    """Raises ValueError."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise ValueError(f"a signature has at most {MAX_SIGNATURE_BYTES} bytes")
    return msgspec.json.decode(data, type=Signature)


def is_signed_by(public: bytes, signature: Signature, manifest: bytes) -> bool:
    """`public`: 32 bytes. Raises InvalidKey when they are no key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
    except ValueError as error:
        raise InvalidKey("not an Ed25519 public key") from error
    try:
        raw = base64.b64decode(signature.sig, validate=True)
        key.verify(raw, _PURPOSE + manifest)
    except (InvalidSignature, ValueError):  # binascii.Error is one
        return False
    return base64.b64encode(raw).decode("ascii") == signature.sig  # one spelling, no other
