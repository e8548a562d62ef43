"""What the router's benchmark says must be able to be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate, text_of

from benchmarks.routing.load import Taken
from benchmarks.routing.place import rate
from benchmarks.routing.swaps import Swapped
from benchmarks.routing.targets import at_least, at_most
from benchmarks.routing.versions import lexical_off, of_task
from services.router.surrogate import load_version
from shared.contracts.events import Decision, Outcome, Reason

AT = datetime(2026, 1, 5, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def decision(version: str, decided: float, *, batch: float = 0.1) -> Decision:
    return Decision(
        request_id="r", task="t", outcome=Outcome.HANDLED, reason=Reason.CERTIFIED,
        decided_at=at(decided), version=version, timings={"batch_ms": 1000 * batch},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "decided", "batch", "stranger"),
    [
        ("v1", 5.0, 0.1, False),
        ("v1", 10.05, 0.1, False),  # its batch began before the swap
        ("v1", 10.5, 0.1, True),  # long retired
        ("v2", 9.5, 0.1, True),  # not yet served
        ("v2", 10.5, 1.0, False),
        ("v2", 30.0, 0.1, False),  # the last one stays
        ("v9", 10.5, 0.1, True),
    ],
)
def test_a_version_must_have_been_active_in_its_batch(
    version: str, decided: float, batch: float, stranger: bool
) -> None:
    taken = Taken(1, decisions=[decision(version, decided, batch=batch)])
    found = Swapped(Taken(0), taken, {"v1": at(0), "v2": at(10)}, [])
    assert bool(found.strangers) is stranger


def test_a_rate_leaves_out_the_start_and_the_end() -> None:
    seen = [(0.0, 0), (5.0, 0), (6.0, 100), (7.0, 300), (8.0, 500), (8.5, 500), (60.0, 1000)]
    assert rate(seen, 1000) == pytest.approx(200.0)
    with pytest.raises(ValueError, match="too few"):
        rate([(0.0, 0), (1.0, 1000)], 1000)


def test_what_was_not_answered_is_lost() -> None:
    assert Taken(5, ms=[1.0, 2.0, 3.0]).lost == 2


def test_targets_can_be_missed() -> None:
    assert at_least("x", 9.99, 10)["met"] is False
    assert at_least("x", 10.0, 10)["met"] is True
    assert at_most("x", 3.01, 3)["met"] is False


def test_without_its_lexical_stage_a_version_encodes_everything_and_can_be_loaded() -> None:
    encoder = HashEncoder()
    artifact = make_surrogate(encoder)
    other = of_task(lexical_off(artifact), "other", window="2026-02-01")
    other.verify(other.version)
    assert other.manifest.task == "other"
    assert other.version.startswith("2026-02-01-")
    said = load_version("v", other, encoder, threads=1).cascade.answer(
        1, encoder.tokenize([text_of("billing")]), lambda _: encoder.encode([text_of("billing")])
    )
    plain = load_version("v", artifact, encoder, threads=1).cascade.answer(
        1, encoder.tokenize([text_of("billing")]), lambda _: encoder.encode([text_of("billing")])
    )
    assert (plain.stage.tolist(), said.stage.tolist()) == ([0], [1])
