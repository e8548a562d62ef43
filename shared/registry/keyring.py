"""The public keys whose signatures count: a small JSON file that everyone may read and only the
operator may write.

It holds several keys, so that they can be rotated, and those that were revoked, so that a key
does not come back by being trusted again somewhere else.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from datetime import datetime
from pathlib import Path

import msgspec

from shared.registry.signatures import InvalidKey, key_id

MAX_FILE_BYTES = 1024 * 1024


class InvalidKeyring(ValueError):
    """A file that is no keyring; the message names it and what is wrong."""


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`public`: base64 of 32 bytes. `revoked`: since when its signatures count for nothing."""

    public: str
    added: datetime
    note: str = ""
    revoked: datetime | None = None

    @property
    def raw(self) -> bytes:
        """Raises InvalidKey."""
        try:
            raw = base64.b64decode(self.public, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            raise InvalidKey(f"{self.public[:50]!r} is not the base64 of 32 bytes")
        return raw

    @property
    def id(self) -> str:
        return key_id(self.raw)


class _File(msgspec.Struct, frozen=True, kw_only=True, tag="tracer-keyring-1", tag_field="kind"):
    keys: list[TrustedKey]


def read_keyring(path: Path) -> dict[str, TrustedKey]:
    """Keys by their ids, oldest first. Raises InvalidKeyring."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidKeyring(f"{path} is too large for a keyring")
        keys = msgspec.json.decode(path.read_bytes(), type=_File).keys
        return {key.id: key for key in keys}
    except OSError as error:
        raise InvalidKeyring(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidKey) as error:
        raise InvalidKeyring(f"{path} is no keyring: {error}") from error


def write_keyring(path: Path, keys: dict[str, TrustedKey]) -> None:
    """Replaces the file as a whole; everyone may read it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(_File(keys=list(keys.values()))), indent=2)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data + b"\n")
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
