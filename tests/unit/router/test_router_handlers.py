from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from doubles import HashEncoder
from prometheus_client import REGISTRY
from surrogates import LABELS, make_surrogate, text_of

from services.router.handlers import Router, Topics
from services.router.serving import OnTrial, Serving, Version
from services.router.surrogate import LoadedVersion, UnusableArtifact, load_version
from shared.bus.base import Message, Record
from shared.bus.errors import InvalidMessage
from shared.clock import FakeClock
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Deferral, Outcome, Reason, Request
from shared.contracts.tasks import Task
from shared.onnx.session import Scored, StageFailed, StageSession
from shared.registry.base import Artifact, State


def loaded(artifact: Artifact, encoder: HashEncoder) -> LoadedVersion:
    return load_version("v1", artifact, encoder, threads=1)


def router(
    versions: Mapping[str, Version | Serving], encoder: HashEncoder, *, audit_share: float = 0.0,
    labels: tuple[str, ...] = (),
) -> Router:  # fmt: skip
    serving = {
        name: each if isinstance(each, Serving) else Serving(each)
        for name, each in versions.items()
    }

    def rejected(message: Message, error: InvalidMessage) -> Record:
        return Record("dead-letters", message.key, f"{error.field}: {error}".encode())

    return Router(
        tasks={
            name: Task(name=name, audit_share=audit_share, labels=labels)
            for name in ("support", "other")
        },
        serving=lambda: serving,
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


def test_the_time_since_the_record_is_observed(encoder: HashEncoder) -> None:
    def told(part: str) -> float:
        return REGISTRY.get_sample_value(f"tracer_router_request_seconds_{part}") or 0.0

    count, total = told("count"), told("sum")
    router({}, encoder)([ask("hello")])
    assert told("count") - count == 1
    assert told("sum") - total == pytest.approx(1.0)
    router({}, encoder)([message(Request(id="r", task="support", input="hello"), offset=-1)])
    assert told("count") - count == 1  # the door times its calls itself


def test_every_answer_counts_also_when_it_is_given_again_and_no_dead_letter_does(
    encoder: HashEncoder,
) -> None:
    def told() -> float:
        labels = {"task": "support", "outcome": "deferred", "reason": "no_active_version"}
        return REGISTRY.get_sample_value("tracer_decisions_total", labels) or 0.0

    before, made = told(), router({}, encoder)
    too_large = Request(id="r", task="support", input="a", metadata={"n": [1e15] * 50_000})
    grows = encode(too_large).replace(b"1000000000000000.0", b"1e15")
    (letter,) = made([message(grows)])
    assert (letter.topic, told() - before) == ("dead-letters", 0)
    for _ in range(2):  # as after a commit that failed
        made([ask("hello")])
    assert told() - before == 2


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
    version = loaded(artifact, encoder)
    reads = []

    def read() -> Mapping[str, Serving]:
        reads.append(1)
        return {"support": Serving(version)}

    handle = router({}, encoder)
    handle = Router(**{**vars(handle), "serving": read})
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


class Saying(StageSession):
    """A graph that passed its trial and says something else of these rows."""

    label: int | None = None

    def run(self, *args: Any, **more: Any) -> Scored:
        if self.label is None:
            raise StageFailed("indices are out of data bounds")
        said = super().run(*args, **more)
        return said._replace(label=np.full_like(said.label, self.label))


@pytest.mark.parametrize("label", [None, len(LABELS), -1], ids=["nothing", "no label", "below 0"])
@pytest.mark.parametrize("deferred", [(), ("account",)])
def test_what_a_graph_cannot_say_is_deferred_and_ends_no_router(
    artifact: Artifact, encoder: HashEncoder, label: int | None, deferred: tuple[str, ...],
) -> None:  # fmt: skip
    manifest = msgspec.structs.replace(artifact.manifest, deferred_labels=deferred)
    version = loaded(Artifact(manifest.encode(), artifact.blobs), encoder)
    for session in version.cascade.sessions:
        session.__class__ = Saying
        session.label = label  # type: ignore[attr-defined]
    (record,) = router({"support": version}, encoder)([ask(text_of("billing"))])
    assert record.topic == "deferred"
    assert decode(record.value, Deferral).reason is Reason.INVALID_INPUT


def test_another_encoder_is_refused(artifact: Artifact) -> None:
    with pytest.raises(UnusableArtifact, match="same encoder artifact"):
        load_version("v1", artifact, HashEncoder(digest="f" * 64), threads=1)


def test_other_dimensions_are_refused(artifact: Artifact) -> None:
    with pytest.raises(UnusableArtifact, match="features"):
        load_version("v1", artifact, HashEncoder(dim=16), threads=1)


def many(n: int, text: str) -> list[Message]:
    return [message(Request(id=f"r{i}", task="support", input=text), i) for i in range(n)]


def test_a_share_of_what_is_handled_is_audited_too(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    handle = router({"support": loaded(artifact, encoder)}, encoder, audit_share=0.25)
    records = handle(many(400, text_of("billing")))
    decisions = [decode(r.value, Decision) for r in records if r.topic == "decisions"]
    audits = [decode(r.value, Deferral) for r in records if r.topic == "deferred"]
    assert len(decisions) == 400
    assert all(d.label == "billing" for d in decisions)
    assert 60 <= len(audits) <= 140
    assert {d.request_id for d in decisions if d.outcome is Outcome.AUDITED} == {
        a.request.id for a in audits
    }
    for audit in audits:
        assert (audit.outcome, audit.reason) == (Outcome.AUDITED, Reason.CERTIFIED)
        assert audit.observation_probability == audit.audit_share == 0.25
        assert audit.drawn
        (opinion,) = audit.opinions
        assert (opinion.version, opinion.label, opinion.handled) == ("v1", "billing", True)


def test_a_redelivery_audits_the_same(artifact: Artifact, encoder: HashEncoder) -> None:
    handle = router({"support": loaded(artifact, encoder)}, encoder, audit_share=0.1)
    batch = many(300, text_of("billing"))
    again = list(reversed(batch))
    assert {r.key for r in handle(batch) if r.topic == "deferred"} == {
        r.key for r in handle(again) if r.topic == "deferred"
    }


def test_the_audit_sample_covers_deferred_requests_alike(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    handle = router({"support": loaded(artifact, encoder)}, encoder, audit_share=0.25)
    handled = handle(many(200, text_of("billing")))
    drawn = {r.key for r in handled if r.topic == "deferred"}
    unsure = handle(many(200, f"{text_of('billing')} {text_of('delivery')}"))
    deferrals = [decode(r.value, Deferral) for r in unsure]
    assert {d.request.id.encode() for d in deferrals if d.drawn} == drawn
    assert all(d.observation_probability == 1.0 for d in deferrals)
    assert not any(o.handled for d in deferrals for o in d.opinions)


@pytest.mark.parametrize(
    ("state", "reason"), [(State.PAUSED, Reason.PAUSED), (State.TRIPPED, Reason.TRIPPED)]
)
def test_paused_and_tripped_versions_are_not_asked(
    state: State, reason: Reason, artifact: Artifact
) -> None:
    encoder = HashEncoder()
    serving = Serving(loaded(artifact, encoder), state)
    (record,) = router({"support": serving}, encoder)([ask(text_of("billing"))])
    deferral = decode(record.value, Deferral)
    assert (deferral.reason, deferral.version, deferral.opinions) == (reason, "v1", [])
    assert encoder.encoded == []


def test_on_probation_the_teacher_answers_and_the_opinion_is_kept(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    serving = Serving(loaded(artifact, encoder), State.PROBATION)
    (record,) = router({"support": serving}, encoder)([ask(text_of("billing"))])
    deferral = decode(record.value, Deferral)
    assert (deferral.outcome, deferral.reason) == (Outcome.DEFERRED, Reason.PROBATION)
    assert deferral.opinions[0].handled
    assert deferral.opinions[0].label == "billing"


def test_a_label_that_was_removed_is_no_answer(artifact: Artifact, encoder: HashEncoder) -> None:
    handle = router({"support": loaded(artifact, encoder)}, encoder, labels=("account", "delivery"))
    first, second = handle([ask(text_of("billing"), "a"), ask(text_of("account"), "b")])
    deferral = decode(first.value, Deferral)
    assert deferral.reason is Reason.LABEL_REMOVED
    assert not deferral.opinions[0].handled
    assert decode(second.value, Decision).label == "account"


def other(artifact: Artifact, encoder: HashEncoder) -> LoadedVersion:
    return load_version("v2", artifact, encoder, threads=1)


def test_a_shadow_is_compared_where_the_teacher_answers_and_answers_nobody(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    trial = OnTrial(other(artifact, encoder), "shadow", 0.5)
    serving = Serving(loaded(artifact, encoder), trial=trial)
    records = router({"support": serving}, encoder, audit_share=0.2)(many(200, text_of("billing")))
    decisions = [decode(r.value, Decision) for r in records if r.topic == "decisions"]
    assert {d.version for d in decisions} == {"v1"}
    audits = [decode(r.value, Deferral) for r in records if r.topic == "deferred"]
    assert audits
    assert all([o.version for o in audit.opinions] == ["v1", "v2"] for audit in audits)


def test_a_shadow_without_an_active_version_is_compared_on_everything(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    serving = Serving(None, trial=OnTrial(other(artifact, encoder), "shadow", 0.5))
    (record,) = router({"support": serving}, encoder)([ask(text_of("billing"))])
    deferral = decode(record.value, Deferral)
    assert deferral.reason is Reason.NO_ACTIVE_VERSION
    assert [(o.version, o.handled) for o in deferral.opinions] == [("v2", True)]


def test_a_canary_answers_its_share_of_the_requests(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    trial = OnTrial(other(artifact, encoder), "canary", 0.3)
    serving = Serving(loaded(artifact, encoder), trial=trial)
    handle = router({"support": serving}, encoder)
    decisions = [decode(r.value, Decision) for r in handle(many(400, text_of("billing")))]
    canary = {d.request_id for d in decisions if d.version == "v2"}
    assert 80 <= len(canary) <= 160
    again = [decode(r.value, Decision) for r in handle(many(400, text_of("billing")))]
    assert {d.request_id for d in again if d.version == "v2"} == canary


def test_a_canary_goes_on_while_the_active_version_is_tripped(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    trial = OnTrial(other(artifact, encoder), "canary", 1.0)
    serving = Serving(loaded(artifact, encoder), State.TRIPPED, trial)
    (record,) = router({"support": serving}, encoder)([ask(text_of("billing"))])
    assert decode(record.value, Decision).version == "v2"


def test_a_request_that_grows_beyond_what_a_topic_takes_is_a_dead_letter(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    """1e15 becomes 1000000000000000.0: without this the router would die of it again and again."""
    numbers = ",".join(["1e15"] * 100_000)
    grows = (
        b'{"id":"r","task":"support","input":"hello","metadata":{"numbers":['
        + numbers.encode() + b"]}}"
    )  # fmt: skip
    first, second = router({"support": loaded(artifact, encoder)}, encoder)(
        [message(grows), ask(text_of("billing"))]
    )
    assert first.topic == "dead-letters"
    assert first.value.startswith(b"metadata: ")
    assert second.topic == "decisions"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [(None, Reason.CERTIFIED), (0.97, Reason.ALPHA_RAISED), (0.9, Reason.CERTIFIED)],
)
def test_a_version_certified_for_less_than_is_asked_for_answers_nothing(
    artifact: Artifact, encoder: HashEncoder, asked: float | None, reason: Reason
) -> None:
    serving = Serving(loaded(artifact, encoder), alpha=asked)
    (record,) = router({"support": serving}, encoder)([ask(text_of("billing"))])
    if reason is Reason.CERTIFIED:
        assert decode(record.value, Decision).reason is reason
        return
    deferral = decode(record.value, Deferral)
    assert (deferral.outcome, deferral.reason) == (Outcome.DEFERRED, reason)
    # What it would have said is kept for the trace: its audits go on.
    assert [(o.version, o.label, o.handled) for o in deferral.opinions] == [("v1", "billing", True)]


def test_a_canary_certified_for_less_than_is_asked_for_answers_nothing_either(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    canary = load_version("v2", make_surrogate(encoder, alpha=0.9), encoder, threads=1)
    version = loaded(artifact, encoder)
    serving = Serving(version, trial=OnTrial(canary, "canary", 0.5))
    records = router({"support": serving}, encoder)(
        [ask(text_of("billing"), f"r{i}") for i in range(40)]
    )
    answered = [decode(r.value, Decision) for r in records if r.topic == "decisions"]
    deferred = [decode(r.value, Deferral) for r in records if r.topic == "deferred"]
    assert {d.version for d in answered} == {"v1"}
    assert {(d.version, d.reason) for d in deferred} == {("v2", Reason.ALPHA_RAISED)}


def test_a_version_is_asked_redacted_texts_and_the_teacher_gets_the_request(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    """The certificate is of redacted texts, so those are what is answered."""
    asked: list[tuple[str, ...]] = []

    class Watching(LoadedVersion):
        def answer(self, inputs, encoder):  # type: ignore[no-untyped-def]
            asked.extend(inputs)
            return super().answer(inputs, encoder)

    version = Watching(**vars(loaded(artifact, encoder)))
    tasks = {"support": Task(name="support", redact="builtin", audit_share=1.0)}
    some = replace(router({"support": version}, encoder), tasks=tasks)
    text = "unheard of: ann@example.org"
    (record,) = [record for record in some([ask(text)]) if record.topic == "deferred"]
    assert asked == [("unheard of: [EMAIL]",)]
    assert decode(record.value or b"", Deferral).request.input == text


def clumsy(text: str) -> str:
    if "clumsy" in text:
        raise IndexError(text)
    return text


def test_a_text_on_which_a_redactor_fails_is_a_dead_letter_that_does_not_quote_it(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    tasks = {"support": Task(name="support", redact=f"{__name__}:clumsy")}
    why: list[str] = []

    def rejected(message: Message, error: InvalidMessage) -> Record:
        why.append(f"{error.field}: {error}")
        return Record("dead-letters", message.key, message.value)

    some = replace(
        router({"support": loaded(artifact, encoder)}, encoder), tasks=tasks, dead_letter=rejected
    )
    bad, good = some.each([ask("a clumsy secret"), ask("another text")])
    assert [record.topic for record in bad] == ["dead-letters"]
    assert {record.topic for record in good} <= {"decisions", "deferred"}
    assert why[0].startswith("input: the redactor")
    assert "secret" not in why[0]
