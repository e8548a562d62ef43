from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pytest
from doubles import HashEncoder
from surrogates import LABELS, make_surrogate, text_of

from services.router.handlers import Router, Topics, Version
from services.router.surrogate import LoadedVersion, UnusableArtifact, load_version
from shared.bus.base import Message, Record
from shared.bus.errors import InvalidMessage
from shared.clock import FakeClock
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, Reason, Request
from shared.registry.base import Active, Artifact


@pytest.fixture(scope="module")
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture(scope="module")
def artifact(encoder: HashEncoder) -> Artifact:
    return make_surrogate(encoder)


def loaded(artifact: Artifact, encoder: HashEncoder) -> LoadedVersion:
    return load_version(Active("v1", 1), artifact, encoder, threads=1)


def router(versions: Mapping[str, Version], encoder: HashEncoder) -> Router:
    def rejected(message: Message, error: InvalidMessage) -> Record:
        return Record("dead-letters", message.key, f"{error.field}: {error}".encode())

    return Router(
        tasks={"support", "other"},
        versions=lambda: versions,
        encoder=encoder,
        clock=FakeClock(datetime(2026, 1, 5, tzinfo=UTC)),
        topics=Topics(decisions="decisions", deferred="deferred"),
        dead_letter=rejected,
    )


def message(request: Request | bytes, offset: int = 0) -> Message:
    value = request if isinstance(request, bytes) else encode(request)
    stamp = int(datetime(2026, 1, 4, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)
    return Message("requests", 0, offset, b"k", value, (("traceparent", b"00-1"),), stamp)


def ask(text: str | list[str], request_id: str = "r", task: str = "support") -> Message:
    return message(Request(id=request_id, task=task, input=text))


def test_sure_answers_are_decisions_with_everything_in_them(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    version = loaded(artifact, encoder)
    (record,) = router({"support": version}, encoder)([ask(text_of("billing"))])
    assert (record.topic, record.key) == ("decisions", b"r")
    assert record.headers == (("traceparent", b"00-1"),)
    decision = decode(record.value, Decision)
    assert (decision.outcome, decision.reason) == (Outcome.HANDLED, Reason.CERTIFIED)
    assert (decision.label, decision.version) == ("billing", "v1")
    assert decision.accept_score is not None
    assert decision.accept_score >= (decision.threshold or 1.0)
    assert decision.timings["queued_ms"] == 1000.0


def test_unsure_ones_are_deferred_with_the_score(artifact: Artifact, encoder: HashEncoder) -> None:
    unsure = f"{text_of('billing')} {text_of('delivery')}"
    (record,) = router({"support": loaded(artifact, encoder)}, encoder)([ask(unsure)])
    assert record.topic == "deferred"
    deferral = decode(record.value, Deferral)
    assert (deferral.outcome, deferral.reason) == (Outcome.DEFERRED, Reason.BELOW_THRESHOLD)
    assert deferral.request.input == unsure
    assert deferral.version == "v1"
    assert deferral.accept_score is not None
    assert deferral.accept_score < (deferral.threshold or 0.0)


def test_without_a_version_everything_is_deferred_and_nothing_encoded() -> None:
    encoder = HashEncoder()
    (record,) = router({}, encoder)([ask("anything")])
    assert decode(record.value, Deferral).reason is Reason.NO_ACTIVE_VERSION
    assert encoder.encoded == []


def test_a_batch_gives_one_record_a_message_in_order(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    batch = [
        ask(text_of("billing"), "a"),
        message(b"\xff"),
        ask("who knows", "b", task="other"),
        ask(["two", "texts"], "c"),
        ask(text_of("account"), "d"),
        message(b'{"id":"e","task":"support","input":""}'),
        ask("x", "f", task="unheard-of"),
    ]
    records = router({"support": loaded(artifact, encoder)}, encoder)(batch)
    assert [r.topic for r in records] == [
        "decisions", "dead-letters", "deferred", "deferred", "decisions", "dead-letters",
        "dead-letters",
    ]  # fmt: skip
    assert decode(records[2].value, Deferral).reason is Reason.NO_ACTIVE_VERSION
    assert decode(records[3].value, Deferral).reason is Reason.INVALID_INPUT
    assert decode(records[4].value, Decision).label == "account"
    assert records[5].value.startswith(b"input: ")
    assert b"known: other, support" in records[6].value


def test_a_whole_batch_is_answered_by_one_version(artifact: Artifact, encoder: HashEncoder) -> None:
    """A swap amid a batch shows only in the next one."""
    versions: dict[str, Version] = {"support": loaded(artifact, encoder)}
    reads = []

    def read() -> Mapping[str, Version]:
        reads.append(1)
        return versions

    handle = router(versions, encoder)
    handle = Router(**{**vars(handle), "versions": read})
    handle([ask(text_of("billing"), str(i)) for i in range(10)])
    assert len(reads) == 1


def test_an_embedding_that_is_not_finite_is_deferred() -> None:
    class Broken(HashEncoder):
        broken = False

        def encode_tokens(self, rows):  # type: ignore[no-untyped-def]
            embeddings = super().encode_tokens(rows)
            if self.broken:
                embeddings[0] = np.nan
            return embeddings

    encoder = Broken()
    artifact = make_surrogate(encoder, lexical=False)
    encoder.broken = True
    records = router({"support": loaded(artifact, encoder)}, encoder)(
        [ask(text_of("billing"), "a"), ask(text_of("billing"), "b")]
    )
    assert decode(records[0].value, Deferral).reason is Reason.INVALID_INPUT
    assert decode(records[1].value, Decision).label == "billing"


def test_scores_do_not_depend_on_the_batch(artifact: Artifact, encoder: HashEncoder) -> None:
    version = loaded(artifact, encoder)
    inputs = [(text_of(label),) for label in LABELS] * 7
    together = version.answer(inputs, encoder)
    alone = [version.answer([texts], encoder)[0] for texts in inputs]
    assert [a.label for a in together] == [a.label for a in alone]
    assert np.allclose(
        [a.accept_score or 0 for a in together], [a.accept_score or 0 for a in alone], atol=1e-6
    )


def test_another_encoder_is_refused(artifact: Artifact) -> None:
    with pytest.raises(UnusableArtifact, match="same encoder artifact"):
        load_version(Active("v1", 1), artifact, HashEncoder(digest="f" * 64), threads=1)


def test_other_dimensions_are_refused(artifact: Artifact) -> None:
    with pytest.raises(UnusableArtifact, match="features"):
        load_version(Active("v1", 1), artifact, HashEncoder(dim=16), threads=1)
