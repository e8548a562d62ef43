"""What is on this machine: the tasks file and its mappings, the keys, the encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from services.ctl.doctor.findings import (
    Finding,
    Patient,
    Service,
    failed,
    ok,
    skipped,
    warning,
)
from shared.contracts.mapping import Format
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.encoder.errors import EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.redaction.load import InvalidRedactor, check_redactors
from shared.registry.trust import trust_of
from shared.sources.catalogue import readers_by_topic, readers_of


def tasks(patient: Patient) -> tuple[Finding, dict[str, Task]]:
    """Can the tasks file be read, and what it names be imported?"""
    path = patient.settings.tasks
    try:
        found = load_tasks(path)
        check_redactors(found.values())
    except InvalidTasks as error:
        fix = "correct the field that is named; TRACER_TASKS says which file"
        return failed("tasks.file", str(error), fix), {}
    except InvalidRedactor as error:
        return failed("tasks.file", str(error), f"correct `redact` in {path}"), {}
    if not found:
        fix = f"describe a task in {path}; see docs/tutorial.md"
        return failed("tasks.file", f"{path} has no task", fix), {}
    return ok("tasks.file", f"{path}: {', '.join(sorted(found))}"), found


def trials(patient: Patient, found: dict[str, Task]) -> Iterator[Finding]:
    """What a day must bring for a version on trial to be promoted by evidence: the next window's
    begins anew. No finding for a task without trials."""
    if Service.TRAINER not in patient.services:
        return
    for name, task in sorted(found.items()):
        check = f"rollout.{name}"
        if task.rollout == "direct":
            continue
        if task.audit_share == 0:
            fix = "set `audit_share`, or promote with `tracerctl promote`"
            yield warning(check, f"{task.rollout} without audits: no evidence promotes", fix)
        else:
            need = math.ceil(task.promote_after / task.audit_share)
            yield ok(
                check,
                f"{task.rollout}: beside a version that answers, evidence promotes only where a "
                f"trial would answer {need:,} requests a day or more (promote_after / audit_share)",
            )


def sources(patient: Patient, found: dict[str, Task]) -> tuple[Finding | None, list[str]]:
    """Can the paths of the tasks' mappings be compiled? And the topics that ingest reads by them.

    No finding where no task has a mapping, or ingest is none of these services.
    """
    mappings = [mapping for task in found.values() for mapping in task.sources]
    if not mappings or Service.INGEST not in patient.services:
        return None, []
    try:
        readers_of(found.values(), *Format)
        topics = sorted(readers_by_topic(found.values()))
    except InvalidTasks as error:
        fix = f"correct it in {patient.settings.tasks}; `tracerctl sources check` tries it on a log"
        return failed("sources.mappings", str(error), fix), []
    return ok(
        "sources.mappings", f"{len(mappings)}, of topics: {', '.join(topics) or 'none'}"
    ), topics


def keys(patient: Patient) -> Finding:
    """Whose signatures count, and does the trainer sign with one that does?"""
    check, settings = "keys.trusted", patient.settings
    if not {"router", "trainer"} & set(patient.services):
        return skipped(check, "none of these services reads or signs versions")
    secret = settings.signing_key.get_secret_value() if settings.signing_key else None
    try:
        trust = trust_of(
            settings.trusted_keys, unsigned_allowed=settings.unsigned == "allow", signing_key=secret
        )
        trusted = [name for name, key in trust.keys().items() if key.revoked is None]
    except ValueError as error:
        return failed(check, str(error), "do what it says; `tracerctl keys list` shows the keyring")
    if settings.trusted_keys is None:
        fix = "`tracerctl keys new`, then set TRACER_TRUSTED_KEYS and unset TRACER_UNSIGNED"
        return warning(check, "versions that nobody signed are served (TRACER_UNSIGNED=allow)", fix)
    if not trusted:
        fix = f"`tracerctl keys new`: {settings.trusted_keys} must trust one"
        return failed(check, f"{settings.trusted_keys} trusts no key", fix)
    if secret is None and "trainer" in patient.services:
        fix = (
            "set TRACER_SIGNING_KEY_FILE to the key of `tracerctl keys new`; where no trainer runs "
            "with this environment, leave it out with --service"
        )
        return failed(check, "the trainer has no key to sign with", fix)
    loose = _loose(settings.trusted_keys)
    if loose is not None:
        return warning(check, *loose)
    signs = f"; {trust.signer.key_id} signs" if trust.signer else ""
    return ok(check, f"{settings.trusted_keys} trusts {', '.join(trusted)}{signs}")


def _loose(keyring: Path) -> tuple[str, str] | None:
    """What others on this machine may do with the keys, and what to do; None where nothing."""
    if keyring.stat().st_mode & 0o022:
        return f"others may write {keyring}, and trust a key of their own", f"chmod 644 {keyring}"
    secret = os.environ.get("TRACER_SIGNING_KEY_FILE")
    if secret and Path(secret).stat().st_mode & 0o004:
        fix = f"chmod 600 {secret}, unless nobody else has an account where it is mounted"
        return f"everybody may read the signing key {secret}", fix
    return None


def encoder(patient: Patient) -> tuple[Finding, str | None]:
    """Is the encoder whole, and does it run here? Its digest, where it is."""
    check, folder = "encoder.artifact", patient.settings.encoder
    if not {"router", "trainer"} & set(patient.services):
        return skipped(check, "none of these services encodes texts"), None
    try:
        loaded = OnnxEncoder(folder, threads=1)
        length = float((loaded.encode(["is anybody there?"])[0] ** 2).sum())
    except EncoderError as error:
        fix = f"`tracerctl encoder export --out {folder}`, or set TRACER_ENCODER to its folder"
        return failed(check, str(error), fix), None
    if abs(length - 1) > 1e-3:
        fix = f"`tracerctl encoder check {folder}`, then export it again"
        return failed(check, f"{folder}: an embedding of squared length {length:.3f}", fix), None
    said = f"{folder}: {loaded.info.name}, {loaded.dim} numbers, {loaded.digest[:12]}"
    return ok(check, said), loaded.digest
