"""What the router's benchmark says must be able to be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate, text_of

from benchmarks.routing.load import Taken
from benchmarks.routing.ours_worker import figures
from benchmarks.routing.place import rate
from benchmarks.routing.rounds import Pass, Run, in_rounds, medians
from benchmarks.routing.swaps import Swapped, passed
from benchmarks.routing.swaps import table as swap_table
from benchmarks.routing.targets import at_least, at_most, table, targets
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


def swap_figures(**changed: float) -> dict[str, Any]:
    load = {"p50_ms": 10.0, "p99_ms": 50.0, "requests": 30_000, "lost": 0, "doubled": 0}
    found = {
        "swaps": 200, "versions_answering": 100, "by_a_version_not_active": 0, "p99_ratio": 1.2,
        "memory_early_mb": 200.0, "memory_late_mb": 205.0, "memory_ratio": 1.025,
    }  # fmt: skip
    return {**found, "calm": load, "swapping": load | {"p99_ms": 60.0}, **changed}


@pytest.mark.parametrize(
    "wrong", [{"by_a_version_not_active": 1}, {"p99_ratio": 1.51}, {"memory_ratio": 1.051}]
)
def test_a_swap_test_can_fail(wrong: dict[str, float]) -> None:
    assert passed(swap_figures())
    assert not passed(swap_figures(**wrong))
    lost = swap_figures()
    lost["swapping"] = lost["swapping"] | {"lost": 1}
    assert not passed(lost)
    assert "| lost | 0 | 1 | | 0 |" in swap_table(lost)


def router_result() -> dict[str, Any]:
    """Figures of a run: ours twelve times the peer with its own embedder, five with our encoder."""
    speeds = {
        "text_batch_per_s": 1_200.0, "text_batch_cpu_s_per_1000": 1.0, "text_one_ms_p50": 0.2,
        "text_one_ms_p99": 8.0, "memory_mb": 300.0, "coverage": 0.95, "agreement": 0.96,
        "embedding_one_ms_p50": 0.1, "embedding_one_ms_p99": 0.2, "embedding_batch_per_s": 9e4,
    }  # fmt: skip
    ours = speeds | {
        "text_batch_lexical_off_cpu_s_per_1000": 4.0, "text_batch_lexical_off_per_s": 400.0,
        "lexical_share": 0.77, "encoder_per_s": 390.0, "tokenizer_per_s": 6e4,
        "handler_per_s": 1_100.0, "text_batch_of_encoder": 3.1,
    }  # fmt: skip
    peer = speeds | {"text_batch_per_s": 240.0, "text_one_ms_p50": 8.0, "text_one_ms_p99": 9.0}
    peer |= {"embedding_one_ms_p50": 4.9, "embedding_batch_per_s": 8_000.0}
    peer |= {
        "own_text_batch_per_s": 100.0, "own_text_batch_cpu_s_per_1000": 20.0,
        "own_text_one_ms_p50": 30.0, "own_text_one_ms_p99": 40.0, "own_memory_mb": 900.0,
    }  # fmt: skip
    mode = {
        "per_s": 900.0, "cpu_s_per_1000": 2.0, "memory_mb": 250.0,
        "latency": {"50% load": {"p50_ms": 20.0, "p99_ms": 80.0}},
    }  # fmt: skip
    scale = {
        f"{n} routers, lexical stage {stage}": 500.0 * n for n in (1, 2) for stage in ("on", "off")
    }
    kafka = {
        "exactly_once": mode, "at_least_once": mode, "as_shipped": mode, "partitions": 2,
        "client_alone_per_s": 2e4, "scale_out": scale,
        "start": {"median_s": 2.0, "longest_s": 2.5},
        "swap": {"median_ms": 50.0, "longest_ms": 90.0},
    }  # fmt: skip
    found = {"ours": ours, "peer": peer, "kafka": kafka, "targets": targets([(ours, peer)], kafka)}
    return found | {"machine": {"cores": 2, "encoder": "MiniLM, float32"}}


def test_targets_are_of_the_peers_own_embedder_and_our_encoder_is_shown_beside_it() -> None:
    result = router_result()
    found = {entry["name"]: entry for entry in result["targets"]}
    own = found["text in, batch: × the peer's predict_batch with its own embedder"]
    ours = found["text in, batch: × the peer's predict_batch with our encoder"]
    assert (own["measured"], own["met"]) == (pytest.approx(12.0), True)
    assert (ours["measured"], ours["target"], ours["met"]) == (pytest.approx(5.0), None, None)
    one = found["embeddings in: × the peer's predict, one at a time"]
    assert (one["measured"], one["met"]) == (pytest.approx(49.0), False)


def test_a_ratio_is_of_one_round_whatever_the_machine_did_in_the_others() -> None:
    found = router_result()
    ours, peer, kafka = found["ours"], found["peer"], found["kafka"]
    slow = ours | {"text_batch_per_s": 600.0}, peer | {"own_text_batch_per_s": 50.0}
    fast = ours | {"text_batch_per_s": 4_000.0}, peer | {"own_text_batch_per_s": 360.0}
    named = targets([slow, (ours, peer), fast], kafka)[0]
    assert named["measured"] == pytest.approx(12.0)


def test_medians_are_of_each_figure() -> None:
    rounds = [{"a": {"b": n}, "c": 2.0 * n, "ok": True, "name": "x"} for n in (3, 1, 2)]
    assert medians(rounds) == {"a": {"b": 2}, "c": 4.0, "ok": True, "name": "x"}


def test_every_run_is_in_every_round_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    runs = {name: Run(partial(ran.append, name), 10) for name in ("a", "b")}
    found = in_rounds(runs, 3)
    assert ran == ["a", "b"] * 4
    assert {name: len(passes) for name, passes in found.items()} == {"a": 3, "b": 3}


def test_the_bare_encoder_is_the_best_setting_and_its_ratio_that_of_a_round() -> None:
    def passes(*rates: float) -> list[Pass]:
        return [Pass(rate, 1.0) for rate in rates]

    found = figures(
        {"text_batch": passes(300, 900, 310), "x": passes(100, 300, 110), "y": passes(90, 400, 80)},
        ["x", "y"],
    )
    assert found["encoder_per_s"] == 110
    assert found["text_batch_of_encoder"] == pytest.approx(3.0)


def test_every_row_of_the_table_has_the_cells_of_its_head() -> None:
    lines = table(router_result()).splitlines()
    head = 0
    for line, following in pairwise([*lines, ""]):
        if following.startswith("|---"):
            head = line.count("|")
        elif line.startswith("|"):
            assert line.count("|") == head, line
    assert "| texts/s, batch | 1,200 | 100 | 240 |" in lines
    assert "| embeddings/s, batch | 90,000 |  | 8,000 |" in lines


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
