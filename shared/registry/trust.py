"""Which artifacts are believed: those signed by a key of the keyring."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared.registry.base import Artifact, CorruptArtifact
from shared.registry.keyring import InvalidKeyring, TrustedKey, read_keyring
from shared.registry.signatures import InvalidKey, Signer, is_signed_by, read_signature

log = logging.getLogger(__name__)

HOW = (
    "set TRACER_TRUSTED_KEYS to the keyring of `tracerctl keys new`, or, to go on with a registry "
    "whose versions nobody signed, TRACER_UNSIGNED=allow"
)


class UntrustedArtifact(CorruptArtifact):
    """Not signed, or not by a key that is trusted."""


@dataclass
class Trust:
    """`keyring`: the file of trusted keys; None: whatever is whole is believed. It is read again
    when it changes, so that keys are rotated and revoked without a restart. `signer`: what
    publishers sign with."""

    keyring: Path | None = None
    signer: Signer | None = None
    _keys: dict[str, TrustedKey] = field(default_factory=dict)
    _stamp: tuple[int, int, int] | None = None

    def check(self, manifest: bytes, signature: bytes, version: str) -> None:
        """Before anything of `manifest` is parsed. Raises UntrustedArtifact."""
        if self.keyring is None:
            return
        if not signature:
            raise UntrustedArtifact(f"{version} is not signed; see `tracerctl keys sign`")
        try:
            claimed = read_signature(signature)
            key = self.keys().get(claimed.key)
            if key is None:
                raise UntrustedArtifact(f"{version} is signed by {claimed.key}, which is unknown")
            if key.revoked is not None:
                raise UntrustedArtifact(f"{version} is signed by {claimed.key}, which is revoked")
            if not is_signed_by(key.raw, claimed, manifest):
                raise UntrustedArtifact(f"{version} is not what {claimed.key} signed")
        except (ValueError, RecursionError) as error:  # InvalidKeyring and InvalidKey, too
            raise UntrustedArtifact(f"the signature of {version} cannot be read: {error}") from None

    def signed(self, artifact: Artifact) -> Artifact:
        """The artifact with this publisher's signature; as it is, where there is no signer."""
        if self.signer is None:
            return artifact
        return replace(artifact, signature=self.signer.sign(artifact.manifest_bytes))

    def warn_if_blind(self) -> None:
        """Once, at start, where signatures are not checked."""
        if self.keyring is None:
            log.warning(
                "signatures are not checked: whoever writes to Redis decides what is served",
                extra={"fix": HOW},
            )

    def keys(self) -> dict[str, TrustedKey]:
        """Raises InvalidKeyring."""
        if self.keyring is None:
            return {}
        try:
            found = self.keyring.stat()
        except OSError as error:
            raise InvalidKeyring(f"{self.keyring} cannot be read: {error.strerror}") from error
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._keys, self._stamp = read_keyring(self.keyring), stamp
        return self._keys


def trust_of(keyring: Path | None, *, unsigned_allowed: bool, signing_key: str | None) -> Trust:
    """What a service believes, by its settings. `signing_key`: PEM, of a publisher.

    Raises ValueError, which says what to set, for settings that would believe anybody unasked, or
    have a publisher sign what its readers refuse.
    """
    if keyring is None:
        if not unsigned_allowed:
            raise ValueError(f"no keys are trusted: {HOW}")
    elif unsigned_allowed:
        raise ValueError("TRACER_UNSIGNED=allow makes TRACER_TRUSTED_KEYS void: unset one of them")
    try:
        signer = Signer.from_pem(signing_key) if signing_key else None
        trust = Trust(keyring, signer)
        trusted = trust.keys()
    except InvalidKey as error:
        raise ValueError(f"TRACER_SIGNING_KEY is {error}") from error
    except InvalidKeyring as error:
        raise ValueError(f"TRACER_TRUSTED_KEYS: {error}") from error
    if signer and keyring:
        key = trusted.get(signer.key_id)
        if key is None or key.revoked:
            what = "revoked" if key else "not in TRACER_TRUSTED_KEYS"
            raise ValueError(
                f"TRACER_SIGNING_KEY, {signer.key_id}, is {what}: nobody would load it"
            )
    return trust
