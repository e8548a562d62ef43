"""What a candidate would have done on a past day: figures, slices, comparison and refusals."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from doubles import HashEncoder
from surrogates import make_surrogate
from typer.testing import CliRunner, Result

from services.ctl import whatif_command
from services.ctl.files import InvalidFile
from services.ctl.main import app
from services.ctl.past_day import NoSuchDay, Past, day_of_file, stored_day
from services.ctl.whatif import what_if
from services.router.surrogate import load_version
from shared.contracts.events import Reason, Source, Tokens, Trace
from shared.contracts.tasks import Price, Task
from shared.fitting.challenger import fit_challenger
from shared.fitting.reading import read_horizon
from shared.fitting.stored import horizon_of
from shared.registry.redis import connect
from shared.store.parquet import WindowStore, table_of

FIRST, SECOND, THIRD = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
TASK = Task(name="support", alpha=0.9, audit_share=0.02)
WORDS = {
    "billing": ["invoice", "charged", "payment", "receipt", "card"],
    "delivery": ["parcel", "courier", "late", "shipping", "address"],
    "account": ["password", "login", "email", "profile", "locked"],
}


def traces(n: int, day: date, *, seed: int, noise: float = 0.0) -> list[Trace]:
    """Word salads; a share `noise` of the teacher's answers is any label."""
    rng = np.random.default_rng(seed)
    labels = list(WORDS)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    made = []
    for i in range(n):
        label = labels[i % 3]
        words = [*rng.choice(WORDS[label], 3).tolist(), f"word{rng.integers(400)}"]
        given = labels[rng.integers(3)] if rng.uniform() < noise else label
        made.append(
            Trace(
                id=f"{day}-{i:05d}",
                task="support",
                input=" ".join(words),
                teacher=given,
                occurred_at=start + timedelta(seconds=i),
            )
        )
    return made


def past(before: list[Trace], replayed: list[Trace], task: Task) -> Past:
    horizon = horizon_of(table_of(before), taxonomy=task.labels)
    return Past(horizon, table_of(replayed), SECOND, "2026-01-02", 1, {})


def ask(replayed: list[Trace], *, task: Task = TASK, noise: float = 0.03, **more: Any) -> Any:
    days = past(traces(900, FIRST, seed=1, noise=noise), replayed, task)
    return what_if(days, task, HashEncoder(), **more)


def test_certificate_day_and_money_are_said() -> None:
    found = ask(traces(600, SECOND, seed=2, noise=0.03), per_call=0.01)
    assert not found["refused"]
    certificate, replay = found["certificate"], found["replay"]
    assert certificate["agreement_lower"] >= 0.9
    assert certificate["wrong_per_1000_at_most"] == pytest.approx(
        1000 * certificate["coverage"] * (1 - certificate["agreement_lower"]), abs=0.2
    )
    assert (replay["n_traces"], replay["n_judged"], replay["requests"]) == (600, 600, 600)
    assert replay["coverage"] == pytest.approx(replay["n_handled"] / 600, abs=1e-4)
    right = 1 - replay["n_wrong"] / replay["n_handled"]
    assert replay["agreement"] == pytest.approx(right, abs=1e-4)
    assert replay["agreement_lower"] < right < replay["agreement_upper"]
    assert replay["wrong_per_1000"] < replay["wrong_per_1000_at_most"] < 60
    # 2% of what is handled is asked of the teacher nevertheless.
    assert replay["saved_per_day"] == pytest.approx(0.01 * 0.98 * replay["n_handled"])
    assert replay["saved_per_month"] == pytest.approx(30 * replay["saved_per_day"])
    assert (replay["spent_per_day"], replay["price_from"]) == (6.0, "--price")
    assert sum(row["n"] for row in replay["deferred"]) == 600 - replay["n_handled"]
    json.dumps(found)


def test_the_frontier_lets_one_choose_alpha() -> None:
    found = ask(traces(300, SECOND, seed=2, noise=0.03), noise=0.05)
    rows = {row["alpha"]: row for row in found["frontier"]}
    assert sorted(rows) == [0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.98, 0.99]
    coverages = [row["coverage"] for row in found["frontier"]]
    assert coverages == sorted(coverages, reverse=True)
    handled = [row["replay"]["n_handled"] for row in found["frontier"]]
    assert handled == sorted(handled, reverse=True)
    assert handled[0] > handled[-1]
    asked = {k: v for k, v in found["replay"].items() if k in rows[0.9]["replay"]}
    assert rows[0.9]["replay"] == asked


def test_it_says_what_a_router_would_say() -> None:
    day = traces(200, SECOND, seed=3, noise=0.05)
    day += [
        msgspec.structs.replace(one, id=f"x{i}", input=f"zebra quark {i} flux")
        for i, one in enumerate(day[:20])
    ]
    found = ask(day)
    horizon = horizon_of(table_of(traces(900, FIRST, seed=1, noise=0.03)))
    encoder = HashEncoder()
    artifact = fit_challenger(TASK, SECOND, horizon, encoder, jobs=1).artifact
    assert artifact is not None
    router = load_version(artifact.version, artifact, encoder, threads=1)
    answers = router.answer([(str(one.input),) for one in day], encoder)
    reasons = [answer.reason.value for answer in answers]
    assert found["replay"]["n_handled"] == reasons.count(Reason.CERTIFIED.value)
    deferred = {row["reason"]: row["n"] for row in found["replay"]["deferred"]}
    assert deferred == {r: reasons.count(r) for r in set(reasons) - {Reason.CERTIFIED.value}}
    assert deferred


def test_a_planted_bad_slice_is_found_and_noise_is_not() -> None:
    even = traces(900, SECOND, seed=4, noise=0.04)
    assert ask(even)["slices"]["worst"] == []
    planted = [
        msgspec.structs.replace(
            one, input=f"{one.input} urgent",
            teacher="account" if i % 4 else one.teacher,
        ) if i % 10 == 0 else one
        for i, one in enumerate(even)
    ]  # fmt: skip
    found = ask(planted)["slices"]
    worst = {row["name"]: row for row in found["worst"]}
    assert "urgent" in worst
    assert worst["urgent"]["kind"] == "word"
    assert worst["urgent"]["upper"] < 0.9
    assert worst["urgent"]["n"] >= 50
    assert found["n_tested"] > 10


def test_without_previews_no_word_of_a_text_is_told() -> None:
    day = [
        msgspec.structs.replace(one, input=f"{one.input} urgent", teacher="account")
        if i % 10 == 0 else one
        for i, one in enumerate(traces(900, SECOND, seed=4, noise=0.04))
    ]  # fmt: skip
    found = ask(day, task=msgspec.structs.replace(TASK, previews=False))["slices"]
    assert found["n_tested"] <= 6
    assert {row["kind"] for row in found["worst"]} <= {"label", "length"}


def test_audits_stand_for_the_requests_nobody_saw() -> None:
    """A tenth of 400 handled requests was audited, 100 were deferred: 500 requests."""
    sure = traces(40, SECOND, seed=5)
    audited = [
        msgspec.structs.replace(
            one, source=Source.AUDITED, observation_probability=0.1, audit_share=0.1, drawn=True
        )
        for one in sure
    ]
    deferred = [
        msgspec.structs.replace(
            one, id=f"d{i}", input=f"zebra quark flux {i}", source=Source.DEFERRED,
            deferral_reason=Reason.OUT_OF_DISTRIBUTION, audit_share=0.1,
        )
        for i, one in enumerate(traces(100, SECOND, seed=6))
    ]  # fmt: skip
    found = ask([*audited, *deferred], per_call=1.0)["replay"]
    assert (found["n_judged"], found["requests"], found["spent_per_day"]) == (140, 500, 500)
    rows = {row["reason"]: row for row in found["deferred"]}
    deferred_mass = sum(row["share"] for row in rows.values())
    assert found["coverage"] == pytest.approx(1 - deferred_mass, abs=1e-3)
    assert found["calls_saved_per_day"] == pytest.approx(0.98 * 500 * found["coverage"], abs=0.1)
    assert found["coverage"] > found["n_handled"] / 140 + 0.2


def test_a_day_observed_in_two_ways_is_as_large_as_it_was() -> None:
    """100 requests without a version, at ten times the price, then 1,000 audited at a tenth: the
    ones are a hundred, the others a thousand, whatever they weigh as evidence."""
    night = [
        msgspec.structs.replace(
            one, source=Source.DEFERRED, deferral_reason=Reason.NO_ACTIVE_VERSION, audit_share=0.1,
            input=f"zebra quark flux {i}", cost=1.0,
        )
        for i, one in enumerate(traces(100, SECOND, seed=5))
    ]  # fmt: skip
    audited = [
        msgspec.structs.replace(
            one, id=f"a{i}", source=Source.AUDITED, observation_probability=0.1, audit_share=0.1,
            drawn=True, cost=0.1,
        )
        for i, one in enumerate(traces(90, SECOND, seed=6))
    ]  # fmt: skip
    deferred = [
        msgspec.structs.replace(
            one, id=f"d{i}", source=Source.DEFERRED, deferral_reason=Reason.BELOW_THRESHOLD,
            input=f"zebra quark flux d{i}", audit_share=0.1, cost=0.1,
        )
        for i, one in enumerate(traces(100, SECOND, seed=7))
    ]  # fmt: skip
    found = ask([*night, *audited, *deferred])["replay"]
    assert (found["n_judged"], found["requests"]) == (290, 1_100)
    assert found["spent_per_day"] == pytest.approx(100 * 1.0 + 1_000 * 0.1)
    others = found["n_handled"] - len(audited)
    assert found["coverage"] == pytest.approx((900 + others) / 1_100, abs=1e-3)


def test_what_was_seen_for_its_text_alone_is_not_judged() -> None:
    day = [
        msgspec.structs.replace(
            one, source=Source.DEFERRED, deferral_reason=Reason.BELOW_THRESHOLD
        ) if i < 30 else one
        for i, one in enumerate(traces(90, SECOND, seed=7))
    ]  # fmt: skip
    found = ask(day)
    assert (found["replay"]["n_traces"], found["replay"]["n_judged"]) == (90, 60)
    assert found["replay"]["requests"] == 90
    assert "30 of the day's 90 traces do not count" in found["notes"][0]
    nothing = ask(day[:30])
    assert nothing["replay"]["n_judged"] == 0
    assert nothing["replay"]["coverage"] is None
    assert nothing["certificate"] is not None


def test_removed_labels_and_pairs_are_counted_apart() -> None:
    day = traces(60, SECOND, seed=8)
    day[0] = msgspec.structs.replace(day[0], input=["two", "texts"])
    day[1] = msgspec.structs.replace(
        day[1], teacher="gone", source=Source.DEFERRED, deferral_reason=Reason.BELOW_THRESHOLD
    )
    found = ask(day, task=msgspec.structs.replace(TASK, labels=tuple(WORDS)))
    assert found["replay"]["n_judged"] == 59
    assert {"invalid_input"} <= {row["reason"] for row in found["replay"]["deferred"]}
    assert found["notes"] == [
        "1 traces of the day have labels that are not given, and are no evidence"
    ]


def test_an_answer_outside_of_the_taxonomy_is_a_wrong_one() -> None:
    day = traces(60, SECOND, seed=8)
    odd = [
        msgspec.structs.replace(t, teacher="no idea") if i % 6 == 1 else t
        for i, t in enumerate(day)
    ]
    task = msgspec.structs.replace(TASK, labels=tuple(WORDS))
    before, now = ask(day, task=task)["replay"], ask(odd, task=task)["replay"]
    assert now["n_judged"] == 60
    assert now["n_handled"] == before["n_handled"]
    assert now["n_wrong"] >= before["n_wrong"] + 6


def test_a_refusal_handles_nothing_and_says_why() -> None:
    found = ask(traces(300, SECOND, seed=9), noise=0.5, per_call=1.0)
    assert found["refused"]
    assert found["reason"]
    assert found["certificate"] is None
    assert found["replay"]["n_handled"] == 0
    assert found["replay"]["saved_per_month"] == 0
    assert found["replay"]["wrong_per_1000_at_most"] == 0
    assert found["slices"]["worst"] == []


@pytest.mark.parametrize(
    ("price", "per_call", "spent", "source"),
    [
        (Price(), None, None, None),
        (Price(per_call=0.5), None, 50 * 0.5 + 50 * 0.25, "traces"),
        (Price(per_call=0.5), 2.0, 200.0, "--price"),
    ],
)
def test_the_price_asked_for_goes_first_then_what_traces_say(
    price: Price, per_call: float | None, spent: float | None, source: str | None
) -> None:
    day = traces(100, SECOND, seed=10)
    if source == "traces":
        day = [
            msgspec.structs.replace(one, cost=0.25) if i % 2 else one for i, one in enumerate(day)
        ]
    found = ask(day, task=msgspec.structs.replace(TASK, price=price), per_call=per_call)["replay"]
    assert (found["spent_per_day"], found["price_from"]) == (spent, source)


def test_tokens_are_priced_and_counted() -> None:
    day = [
        msgspec.structs.replace(one, tokens=Tokens(input=900, output=100))
        for one in traces(100, SECOND, seed=11)
    ]
    price = Price(per_million_input_tokens=1.0, per_million_output_tokens=10.0)
    found = ask(day, task=msgspec.structs.replace(TASK, price=price))["replay"]
    assert found["spent_per_day"] == pytest.approx(100 * 0.0019)
    assert found["tokens_saved_per_day"] == pytest.approx(
        1000 * found["calls_saved_per_day"], abs=1
    )


def test_a_version_is_compared_request_by_request() -> None:
    day = traces(300, SECOND, seed=12, noise=0.05)
    timid = make_surrogate(HashEncoder(), threshold=0.999, window="2026-01-02")
    found = ask(day, against=timid)
    against, replay = found["against"], found["replay"]
    assert against["version"] == timid.version
    gained = against["newly_handled"]["n"] - against["newly_deferred"]["n"]
    assert gained == replay["n_handled"] - against["before"]["n_handled"]
    assert against["newly_handled"]["n"] > 0
    assert against["answerer_changes"]["n"] == (
        against["newly_handled"]["n"] + against["newly_deferred"]["n"]
    )
    worse = against["answer_was_the_teachers"]["n"] - against["answer_becomes_the_teachers"]["n"]
    assert worse == replay["n_wrong"] - against["before"]["n_wrong"]
    assert any("fitted on this day" in note for note in found["notes"])


class TestThePastDay:
    def test_is_the_newest_window_and_the_horizon_the_days_before_it(self, tmp_path: Path) -> None:
        store = WindowStore(str(tmp_path))
        for seed, day in enumerate((FIRST, SECOND, THIRD)):
            store.write("support", day, traces(10 + seed, day, seed=seed))
        newest = stored_day(str(tmp_path), TASK, None)
        assert (newest.day, newest.days_before) == (THIRD, 2)
        assert (len(newest.before), len(newest.replayed)) == (21, 12)
        short = stored_day(str(tmp_path), msgspec.structs.replace(TASK, horizon_days=1), None)
        assert (short.days_before, len(short.before)) == (1, 11)
        with pytest.raises(NoSuchDay, match="3 days from 2026-01-01 to 2026-01-03"):
            stored_day(str(tmp_path), TASK, date(2025, 1, 1))
        with pytest.raises(NoSuchDay, match="no window in the 90 days before"):
            stored_day(str(tmp_path), TASK, FIRST)
        with pytest.raises(NoSuchDay, match="no windows of other"):
            stored_day(str(tmp_path), Task(name="other"), None)

    def test_is_nowhere_and_nothing_is_created(self, tmp_path: Path) -> None:
        with pytest.raises(NoSuchDay, match="no such folder"):
            stored_day(str(tmp_path / "typo"), TASK, None)
        assert not (tmp_path / "typo").exists()

    def test_is_a_random_fifth_of_a_file_without_days(self, tmp_path: Path) -> None:
        path = write(tmp_path, traces(100, FIRST, seed=1), dated=False)
        found = day_of_file(path, TASK, None, seed=0)
        assert (len(found.before), len(found.replayed), found.day) == (80, 20, None)
        ids = [*found.before.ids, *found.replayed["id"].to_pylist()]
        assert len(set(ids)) == 100
        again = day_of_file(path, TASK, None, seed=0)
        assert found.replayed.equals(again.replayed)
        assert not found.replayed.equals(day_of_file(path, TASK, None, seed=1).replayed)
        with pytest.raises(NoSuchDay, match="do not say on which day"):
            day_of_file(path, TASK, FIRST, seed=0)

    @pytest.mark.parametrize("dated", [True, False])
    def test_is_redacted_as_the_trainer_would_have_stored_it(
        self, tmp_path: Path, dated: bool
    ) -> None:
        rows = [t for d in (FIRST, SECOND) for t in traces(10, d, seed=1)]
        rows = [msgspec.structs.replace(t, input=f"{t.input} ann@example.org") for t in rows]
        path = write(tmp_path, rows, dated=dated)
        task = msgspec.structs.replace(TASK, redact="builtin")
        found = day_of_file(path, task, None, seed=0)
        texts = [*found.before.texts, *(text for (text,) in found.replayed["input"].to_pylist())]
        assert len(texts) == 20
        assert all(text.endswith(" [EMAIL]") for text in texts)

    def test_has_no_days_that_the_trainer_refuses(self, tmp_path: Path) -> None:
        early = [msgspec.structs.replace(t, occurred_at=datetime(1, 1, 1, tzinfo=UTC))
                 for t in traces(1, FIRST, seed=1)]  # fmt: skip
        path = write(tmp_path, early)
        task = msgspec.structs.replace(TASK, timezone="America/New_York")
        with pytest.raises(InvalidFile, match="between the years 1971 and 9000"):
            day_of_file(path, task, None, seed=0)

    @pytest.mark.parametrize("of_a_file", [True, False])
    def test_is_fitted_before_on_what_the_trainer_would_have_read(
        self, tmp_path: Path, of_a_file: bool
    ) -> None:
        """Of a long horizon a reservoir: all of it takes hours, and certifies something else."""
        task = msgspec.structs.replace(TASK, max_rows=1_000)
        store = WindowStore(str(tmp_path))
        rows = [t for d in (FIRST, SECOND, THIRD) for t in traces(900, d, seed=1)]
        for day in (FIRST, SECOND, THIRD):
            store.write("support", day, [t for t in rows if t.occurred_at.date() == day])
        found = (
            day_of_file(write(tmp_path, rows), task, None, seed=0)
            if of_a_file
            else stored_day(str(tmp_path), task, None)
        )
        evening = read_horizon(store, task, SECOND)
        assert found.before.digest() == evening.digest()
        assert found.before.stored == 1_800
        assert len(found.replayed) == 900
        notes = what_if(found, task, HashEncoder())["notes"]
        assert notes == [
            f"{len(evening)} of 1,800 traces were fitted on, as by the trainer (`max_rows`)"
        ]

    def test_is_refused_where_one_row_has_no_date(self, tmp_path: Path) -> None:
        """A random fifth played the day then, without a word."""
        path = write(tmp_path, [t for d in (FIRST, SECOND) for t in traces(5, d, seed=1)])
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        del rows[7]["occurred_at"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(InvalidFile, match=f"row {rows[7]['id']} has no `occurred_at`, like 1"):
            day_of_file(path, TASK, None, seed=0)

    def test_is_a_day_of_a_file_with_days(self, tmp_path: Path) -> None:
        path = write(tmp_path, [t for d in (FIRST, SECOND, THIRD) for t in traces(5, d, seed=1)])
        found = day_of_file(path, TASK, None, seed=0)
        assert (found.day, found.days_before) == (THIRD, 2)
        assert (len(found.before), len(found.replayed)) == (10, 5)
        assert day_of_file(path, TASK, SECOND, seed=0).days_before == 1


def write(folder: Path, made: list[Trace], *, dated: bool = True) -> Path:
    path = folder / "traces.jsonl"
    rows = [{"id": t.id, "input": t.input, "teacher": t.teacher} for t in made]
    if dated:
        rows = [
            row | {"occurred_at": t.occurred_at.isoformat()}
            for row, t in zip(rows, made, strict=True)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tasks = tmp_path / "tasks.yaml"
        tasks.write_text("tasks: [{name: support, alpha: 0.85, price: {per_call: 0.1}}]\n")
        monkeypatch.setenv("TRACER_TASKS", str(tasks))
        monkeypatch.setenv("TRACER_REDIS_URL", "redis://127.0.0.1:1/0")
        monkeypatch.setenv("TRACER_STORE", str(tmp_path / "windows"))
        monkeypatch.setattr(whatif_command, "_encoder", lambda folder: HashEncoder())
        store = WindowStore(str(tmp_path / "windows"))
        store.write("support", FIRST, traces(600, FIRST, seed=1, noise=0.03))
        store.write("support", SECOND, traces(300, SECOND, seed=2, noise=0.03))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["whatif", *arguments])

    def test_reads_the_trainers_store_and_the_tasks_settings(self) -> None:
        result = self.run("--task", "support", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["task"], found["alpha"], found["day"]) == ("support", 0.85, "2026-01-02")
        assert found["replay"]["price_from"] == "task"
        assert found["against"] is None  # no registry there, which is not worth a word

    def test_says_it_to_people(self) -> None:
        result = self.run("--task", "support", "--alpha", "0.9", "--price", "0.5")
        said = " ".join(result.stdout.split())
        assert result.exit_code == 0, result.output
        assert "What if α = 0.9 for support? Fitted on 600 traces of 1 day before" in said
        assert "wrong answers per 1,000 requests" in said
        assert "a month (audits taken off; prices: --price)" in said
        assert "none differs credibly" in said
        assert "0.9 ←" in said

    def test_a_refusal_is_a_result(self) -> None:
        result = self.run("--task", "support", "--alpha", "0.999")
        assert result.exit_code == 0
        assert "Nothing would be handled: " in result.stdout

    def test_a_refusal_at_every_alpha_is_one_sentence(self, tmp_path: Path) -> None:
        path = write(tmp_path, traces(300, FIRST, seed=3, noise=1.0), dated=False)
        result = self.run("--data", str(path))
        assert result.exit_code == 0
        assert "Nothing would be handled: " in result.stdout
        assert "Nor would it be at any α from 0.8 up." in " ".join(result.stdout.split())

    def test_a_newcomer_needs_a_file_only(self, tmp_path: Path) -> None:
        path = write(tmp_path, traces(500, FIRST, seed=3), dated=False)
        result = self.run("--data", str(path), "--alpha", "0.9")
        assert result.exit_code == 0, result.output
        said = " ".join(result.stdout.split())
        assert "What if α = 0.9? Fitted on 400 traces, replayed on a random fifth" in said
        assert "give one with --price" in said

    def test_the_active_version_is_compared_with(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        artifact = make_surrogate(HashEncoder(), task="support", window="2025-12-31")
        registry = connect(redis_url)
        registry.publish(
            artifact, fence=registry.acquire("support"), at=datetime(2026, 1, 1, tzinfo=UTC),
            reason="certified",
        )  # fmt: skip
        registry.close()
        monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
        result = self.run("--task", "support")
        assert f"Against {artifact.version}" in " ".join(result.stdout.split())
        named = self.run("--task", "support", "--against", artifact.version, "--json")
        assert json.loads(named.stdout)["against"]["version"] == artifact.version
        unknown = self.run("--task", "support", "--against", "2025-01-01-abc")
        assert unknown.exit_code == 1
        assert "tracerctl models list" in " ".join(unknown.stderr.split())

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            ((), 2, "--task is missing"),
            (("--task", "suport"), 2, "it has support"),
            (("--task", "support", "--day", "2026-02-01"), 1, "it has 2 days"),
            (("--task", "support", "--store", "/nowhere"), 1, "no such folder"),
            (("--task", "support", "--store", "s4://bucket"), 1, "--store s4://bucket"),
            (("--task", "support", "--against", "x"), 1, "TRACER_REDIS_URL"),
            (("--data", "/nowhere.jsonl"), 1, "no such file"),
            (("--data", "/nowhere.jsonl", "--against", "x"), 1, "no such file"),
        ],
    )
    def test_mistakes_are_explained(self, arguments: tuple[str, ...], code: int, said: str) -> None:
        result = self.run(*arguments)
        assert result.exit_code == code
        assert said in " ".join(result.stderr.split())
        assert isinstance(result.exception, SystemExit)
