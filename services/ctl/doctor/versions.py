"""The versions that answer: are they whole, signed, and made for this encoder?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.ctl.doctor.findings import Finding, Patient, failed, ok, skipped
from shared.registry.base import CorruptArtifact, RegistryError
from shared.registry.redis import connect
from shared.registry.trust import Trust, UntrustedArtifact


def examine(patient: Patient, tasks: Iterable[str], encoder: str | None) -> Iterator[Finding]:
    """One finding per task. `encoder`: the digest of the one that is here."""
    if "router" not in patient.services:
        return
    url = patient.settings.redis_url.get_secret_value()
    with_trust = Trust(patient.settings.trusted_keys)
    try:
        registry = connect(url, trust=with_trust, socket_timeout=patient.patience)
    except ValueError:
        return  # said of redis.reach
    try:
        for task in tasks:
            check = f"version.{task}"
            try:
                version = registry.active(task).version
                if version is None:
                    yield ok(check, "none yet: everything is deferred to the teacher")
                    continue
                needed = registry.load(task, version).manifest.encoder
            except UntrustedArtifact as error:
                fix = f"`tracerctl keys sign`, or `tracerctl rollback {task}`"
                yield failed(check, str(error), fix)
            except CorruptArtifact as error:
                yield failed(check, str(error), f"`tracerctl rollback {task}`")
            except RegistryError as error:
                yield skipped(check, str(error))
            else:
                yield _fitting(check, version, needed, encoder)
    finally:
        registry.close()


def _fitting(check: str, version: str, needed: str, encoder: str | None) -> Finding:
    if encoder is not None and needed != encoder:
        found = f"{version} was fitted on encoder {needed[:12]}, here is {encoder[:12]}"
        return failed(check, found, "set TRACER_ENCODER to the encoder that the trainer uses")
    return ok(check, f"{version} is whole")
