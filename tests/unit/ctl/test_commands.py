"""tracerctl as a person types it: results on standard output, errors that name the fix."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate
from typer.testing import CliRunner, Result

from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.files import read_rows
from services.ctl.main import app
from services.ctl.output import console
from services.ctl.registry_access import open_registry
from services.ctl.sample.generator import generate
from shared.bus.kafka import KafkaSource
from shared.contracts.codec import decode
from shared.contracts.events import AnnouncementKind, ModelAnnouncement, RawTrace
from shared.contracts.spending import Spent
from shared.registry.base import State
from shared.registry.fit_note import FitNote
from shared.registry.fleet import RouterBeat, connect_fleet
from shared.registry.ledger import open_ledger
from shared.registry.redis import connect

ROOT = Path(__file__).resolve().parents[3]
AT = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_CACHE", str(ROOT / ".cache"))
    monkeypatch.chdir(ROOT)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    rows = [
        row | {"split": "test" if i % 5 == 0 else "oos_test" if i % 50 == 1 else "train"}
        for i, row in enumerate(generate(900))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TestScan:
    def test_says_everything_as_json(self, traces: Path) -> None:
        result = run("scan", str(traces), "--alpha", "0.7", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert not found["refused"]
        assert found["reason"] is None
        assert found["method"] in ("global", "l2d")
        assert (found["alpha"], found["delta"]) == (0.7, 0.1)
        assert (found["n_traces"], found["n_test"]) == (702, 180)
        assert found["left_out"] == {"oos_test": 18}
        assert 0 < found["coverage"] <= 1
        assert found["agreement"] > 0.65
        assert found["certified_agreement_lower"] >= 0.7
        assert 0 < found["certified_coverage"] <= 1
        assert found["fit_seconds"] > 0
        alphas = [point["coverage"] for point in found["frontier"]]
        assert alphas == sorted(alphas, reverse=True)

    def test_it_fits_on_the_encoder_that_trainer_and_routers_are_given(
        self, traces: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACER_ENCODER", str(traces.parent / "another"))
        result = run("scan", str(traces), "--alpha", "0.7")
        assert result.exit_code == 1
        assert "another/encoder.json is missing" in "".join(result.stderr.split("\n"))

    def test_says_it_to_people_too(self, traces: Path) -> None:
        result = run("scan", str(traces), "--alpha", "0.7", "--evidence", "holdout")
        assert result.exit_code == 0, result.output
        assert "Certified" in result.stdout
        said = " ".join(result.stdout.split())
        assert "held-out rows" in said
        share = r"[\d.]+%"
        assert re.search(rf"18 rows of `split: oos_test` were left out; .* answer {share} of", said)

    def test_a_refusal_says_what_was_left_out(self, traces: Path) -> None:
        said = " ".join(run("scan", str(traces), "--alpha", "0.999").stdout.split())
        assert "Refused" in said
        assert "18 rows of `split: oos_test` were left out." in said

    def test_splits_are_known_however_they_are_spelled(self, traces: Path, tmp_path: Path) -> None:
        others = {"train": ("training", "Train", "valid", ""), "test": ("Test", "testing")}
        rows = [json.loads(line) for line in traces.read_text().splitlines()]
        for i, row in enumerate(rows):
            spellings = others.get(row["split"], ("OOS",))
            row["split"] = spellings[i % len(spellings)]
        path = tmp_path / "spelled.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = json.loads(run("scan", str(path), "--alpha", "0.7", "--json").stdout)
        assert (found["n_traces"], found["n_test"]) == (702, 180)
        assert found["left_out"] == {"OOS": 18}

    @pytest.mark.parametrize("name", ["my traces (1).jsonl", "données.2026-11.jsonl.gz"])
    def test_a_file_may_have_any_name(self, traces: Path, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        content = traces.read_bytes()
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        result = run("scan", str(file), "--alpha", "0.7", "--json")
        assert result.exit_code == 0, result.output
        assert not json.loads(result.stdout)["refused"]

    def test_a_byte_order_mark_is_no_part_of_a_file(self, traces: Path, tmp_path: Path) -> None:
        file = tmp_path / "powershell.jsonl"
        file.write_bytes(codecs.BOM_UTF8 + traces.read_bytes())
        assert list(read_rows(file)) == list(read_rows(traces))

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_dash_is_standard_input(
        self, monkeypatch: pytest.MonkeyPatch, traces: Path, packed: bool
    ) -> None:
        content = traces.read_bytes()
        given = io.TextIOWrapper(io.BytesIO(gzip.compress(content) if packed else content))
        monkeypatch.setattr("sys.stdin", given)
        assert list(read_rows(Path("-"))) == list(read_rows(traces))

    def test_a_pipe_is_told_as_one(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with os.fdopen(os.open(pipe, os.O_RDWR), "w"):
            result = run("scan", str(pipe))
        assert result.exit_code == 1
        assert "a pipe, which cannot be read twice; name a file" in result.stderr

    def test_a_refusal_is_a_result(self, traces: Path) -> None:
        result = run("scan", str(traces), "--alpha", "0.999", "--json")
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        assert found["refused"]
        assert found["reason"]
        assert found["coverage"] is None

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{", ":1: not JSON"),
            ("[1]", "a JSON object is needed, not list; one object a line (of an array `jq"),
            ("[", "one object a line (of an array `jq -c '.[]' FILE` makes lines)"),
            ("text,intent", "`tracerctl sources check` and `tracerctl replay`, with --format"),
            ("", "bad.jsonl: no rows, the file is empty"),
            ('{"input": "x"}', "field `teacher`"),
            ('{"input": "x", "teacher": null, "label": "a human\'s"}', "rows that the LLM did not"),
            ('{"input": "x", "teacher": "", "label": "a human\'s"}', "field `teacher` must be"),
            ('{"input": "x", "label": ""}', "field `label` must be"),
            ('{"teacher": "x"}', "field `input` is missing"),
            ('{"input": ["a", "b", "c"], "teacher": "x"}', "field `input` must be"),
            ('{"input": "\\ud800", "teacher": "x"}', "surrogate"),
            ('{"id": "\\ud800", "input": "a", "teacher": "x"}', "`id` has half a surrogate"),
            ("[" * 100_000, "not JSON"),
            (
                '{"input": "x", "teacher": "y", "split": "test"}',
                "no rows to fit on, all are of `split: test`",
            ),
            ('{"input": "x", "teacher": "y", "split": "eval"}', "of `split: eval`; rows"),
        ],
    )
    def test_a_bad_file_is_explained(self, tmp_path: Path, line: str, said: str) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_text(line + "\n")
        result = run("scan", str(path))
        assert result.exit_code == 1
        assert said in " ".join(result.stderr.split())
        assert result.exception is None or isinstance(result.exception, SystemExit)

    def test_a_label_that_no_version_may_have_is_named_before_the_fit(
        self, traces: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "long.jsonl"
        odd = {"id": "odd", "input": "anything", "teacher": "x" * 300}
        path.write_text(traces.read_text() + json.dumps(odd) + "\n")
        result = run("scan", str(path), "--alpha", "0.9")
        assert result.exit_code == 1
        assert "row odd: field `teacher`" in " ".join(result.stderr.split())
        assert isinstance(result.exception, SystemExit)

    def test_what_a_router_would_not_ask_the_version_is_not_answered(
        self, traces: Path, tmp_path: Path
    ) -> None:
        """Held-out pairs of a file of single texts were said to be answered, all of them."""
        rows = [json.loads(line) for line in traces.read_text().splitlines()]
        others = [row for row in rows if row["split"] != "train"]
        for row in others[::2]:
            row["input"] = [row["input"], "more"]
        path = tmp_path / "mixed.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = json.loads(run("scan", str(path), "--alpha", "0.9", "--json").stdout)
        assert found["invalid_share"] == pytest.approx(0.5, abs=0.05)
        assert 0.3 < found["coverage"] <= 1 - found["invalid_share"]
        assert found["agreement"] > 0.9
        said = " ".join(run("scan", str(path), "--alpha", "0.9").stdout.split())
        assert "have another number of texts than was fitted on" in said

    def test_a_missing_encoder_is_explained(self, traces: Path) -> None:
        result = run("scan", str(traces), "--encoder", "/nowhere")
        assert result.exit_code == 1
        assert "/nowhere" in result.stderr

    def test_writes_a_report_that_is_one_file(self, traces: Path, tmp_path: Path) -> None:
        page = tmp_path / "report.html"
        result = run("scan", str(traces), "--alpha", "0.7", "--report", str(page), "--json")
        assert result.exit_code == 0, result.output
        assert page.name in result.stderr.replace("\n", "")
        text = page.read_text(encoding="utf-8")
        found = json.loads(result.stdout)
        assert f"{found['certified_coverage']:.1%}" in text
        assert "Why it defers" in text
        assert "rows of split oos_test were left out" in text

    def test_a_report_into_no_folder_is_refused_before_the_fit(self, tmp_path: Path) -> None:
        result = run("scan", str(tmp_path / "no.jsonl"), "--report", "/nowhere/report.html")
        assert result.exit_code == 2
        assert "--report /nowhere/report.html: there is no folder /nowhere" in result.stderr

    def test_a_report_that_cannot_be_written_costs_no_verdict(
        self, traces: Path, tmp_path: Path
    ) -> None:
        result = run("scan", str(traces), "--alpha", "0.7", "--report", str(tmp_path))
        assert result.exit_code == 1
        assert "Certified" in result.stdout
        said = result.stderr.replace("\n", "")
        assert f"--report {tmp_path}: cannot be written: Is a directory" in said


@pytest.mark.parametrize(
    ("labels", "says"), [(["a"] * 60, "one label only ('a')"), (["a", "b", "a"], "too few to fit")]
)
def test_a_bench_that_fits_nothing_says_why(tmp_path: Path, labels: list[str], says: str) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text(
        "".join(
            json.dumps({"input": f"text {i} of {i % 7} words", "teacher": label}) + "\n"
            for i, label in enumerate(labels)
        )
    )
    result = run("bench", "gate", "--data", str(file), "--splits", "1")
    assert result.exit_code == 1
    assert says in " ".join(result.stderr.split())
    assert not result.stdout


def test_it_tells_its_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"tracerctl {metadata.version('tracer-kafka')}\n"


def test_the_demo_never_empties_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run("demo", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "choose another --folder" in " ".join(result.stderr.split())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_settings_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_DELIVERY", "sometimes")
    result = run("status")
    assert result.exit_code == 2
    assert "TRACER_DELIVERY" in result.stderr


def test_redis_away_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_REDIS_URL", "redis://:hush@127.0.0.1:1/0")
    result = run("status")
    assert result.exit_code == 1
    assert "TRACER_REDIS_URL" in result.stderr
    assert "hush" not in result.output


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as server:
        server.create_topics(["models", "traces.raw"])
        yield server.bootstrap_servers


FRONTIER = [
    {"alpha": alpha, "coverage": coverage, "agreement": alpha + 0.01, "agreement_lower": alpha}
    for alpha, coverage in ((0.95, 0.9), (0.97, 0.6), (0.98, 0.0))
]


@pytest.fixture
def task(
    broker: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[str]]:
    """A task with two published versions."""
    name = f"t-{uuid4().hex[:8]}"
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(f"tasks: [{{name: {name}, alpha: 0.9}}]\n")
    monkeypatch.setenv("TRACER_TASKS", str(tasks))
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", broker)
    registry = connect(redis_url)
    versions = []
    for window in ("2026-01-05", "2026-01-06"):
        artifact = make_surrogate(HashEncoder(), task=name, window=window)
        registry.publish(artifact, fence=registry.acquire(name), at=AT, reason="certified")
        versions.append(artifact.version)
    registry.close()
    return name, versions


def read(broker: str, topic: str, wanted: int) -> list[bytes]:
    source = KafkaSource(bootstrap=broker, group=uuid4().hex, topics=[topic])
    found: list[bytes] = []
    for _ in range(60):
        found += [message.value for message in source.poll(1_000, 0.25)]
        if len(found) >= wanted:
            break
    source.close()
    return found


def announcements(broker: str, task: str, wanted: int) -> list[ModelAnnouncement]:
    """Those of one task, in their order; other tests announce on the topic too."""
    source = KafkaSource(bootstrap=broker, group=uuid4().hex, topics=["models"])
    found: list[ModelAnnouncement] = []
    for _ in range(60):
        events = [decode(m.value, ModelAnnouncement) for m in source.poll(1_000, 0.25)]
        found += [event for event in events if event.task == task]
        if len(found) >= wanted:
            break
    source.close()
    return found


def test_status_list_rollback_and_retire(task: tuple[str, list[str]], broker: str) -> None:
    name, (first, second) = task
    (status,) = json.loads(run("status", "--json").stdout)
    assert (status["task"], status["active"], status["coverage"]) == (name, second, 0.9)
    back = json.loads(run("rollback", name, "--reason", "too bold", "--json").stdout)
    assert (back["version"], back["previous"], back["reason"]) == (first, second, "too bold")
    listed = json.loads(run("models", "list", name, "--json").stdout)
    assert listed["active"] == first
    assert [v["version"] for v in listed["versions"]] == [first, second]
    assert listed["history"][0]["kind"] == "rolled_back"
    assert json.loads(run("models", "show", name, second).stdout)["window"] == "2026-01-06"
    assert run("models", "retire", name).exit_code == 0
    assert json.loads(run("status", "--json").stdout)[0]["active"] is None
    assert [a.kind for a in announcements(broker, name, 2)] == [
        AnnouncementKind.ROLLED_BACK,
        AnnouncementKind.RETIRED,
    ]
    assert "everything is deferred" in " ".join(run("status").stdout.split())


def test_rolling_back_to_what_is_not_there_is_explained(task: tuple[str, list[str]]) -> None:
    name, _ = task
    result = run("rollback", name, "--to", "2020-01-01-abc")
    assert result.exit_code == 1
    assert "tracerctl models list" in " ".join(result.stderr.split())


def test_rolling_back_to_the_active_version_changes_nothing(task: tuple[str, list[str]]) -> None:
    name, (_, second) = task
    assert json.loads(run("rollback", name, "--to", second, "--json").stdout)["changed"] is False
    assert "nothing to change" in run("rollback", name, "--to", second).stdout


def test_pause_and_resume(
    task: tuple[str, list[str]], broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (_, second) = task
    monkeypatch.setenv("LOGNAME", "maria")
    assert "answers" not in run("resume", name).stdout  # serving already
    paused = json.loads(run("pause", name, "--reason", "new prompt", "--json").stdout)
    assert (paused["kind"], paused["version"], paused["changed"]) == ("paused", second, True)
    assert json.loads(run("status", "--json").stdout)[0]["state"] == "paused"
    assert "not serving answers nothing" in " ".join(run("status").stdout.split())
    assert json.loads(run("pause", name, "--json").stdout)["changed"] is False
    assert "answers again" in " ".join(run("resume", name, "--by", "piotr").stdout.split())
    assert json.loads(run("status", "--json").stdout)[0]["state"] == "serving"
    announced = announcements(broker, name, 2)
    assert [a.kind for a in announced] == [AnnouncementKind.PAUSED, AnnouncementKind.RESUMED]
    assert [a.actor for a in announced] == ["maria", "piotr"]
    assert announced[0].reason == "new prompt"


def test_alpha_shows_the_frontier_and_then_asks(
    task: tuple[str, list[str]], broker: str, redis_url: str
) -> None:
    name, (_, second) = task
    shown = json.loads(run("alpha", "0.97", "--task", name, "--show", "--json").stdout)
    assert (shown["alpha"], shown["certified_for"], shown["change"]) == (0.9, 0.95, None)
    assert shown["answer"] == FRONTIER[1]
    assert json.loads(run("status", "--json").stdout)[0]["alpha"] == 0.9
    said = " ".join(run("alpha", "0.97", "--task", name, "--by", "maria").stdout.split())
    assert "certify about 60.0%; until a refit is certified all is deferred" in said
    assert f"{name}: α is 0.97 from now on" in said
    assert json.loads(run("status", "--json").stdout)[0]["alpha"] == 0.97
    assert "nothing to change" in run("alpha", "0.97", "--task", name).stdout
    reset = json.loads(run("alpha", "--task", name, "--reset", "--by", "piotr", "--json").stdout)
    assert (reset["wanted"], reset["change"]["alpha"]) == (0.9, None)
    announced = announcements(broker, name, 2)
    assert [a.kind for a in announced] == [AnnouncementKind.ALPHA] * 2
    assert [(a.alpha, a.actor, a.version) for a in announced] == [
        (0.97, "maria", second), (None, "piotr", second),
    ]  # fmt: skip


def test_the_fleet_names_who_is_behind(task: tuple[str, list[str]], redis_url: str) -> None:
    name, (first, second) = task
    fleet = connect_fleet(redis_url)
    now = datetime.now(UTC)
    for instance, version in ((f"{name}-a", first), (f"{name}-b", second)):
        fleet.beat(
            RouterBeat(
                instance=instance, host="h", mode="exactly_once", started=now, at=now, lag=3,
                per_second=1.5, tasks=1, versions={name: version},
            )
        )  # fmt: skip
    rows = {row["instance"]: row for row in json.loads(run("fleet", "--json").stdout)}
    assert rows[f"{name}-a"]["behind"] == [name]
    assert rows[f"{name}-b"]["behind"] == []
    assert rows[f"{name}-b"]["lag"] == 3
    assert run("fleet").exit_code == 0
    for instance in rows:
        fleet.leave(instance)
    fleet.close()
    assert "No router has said anything" in run("fleet").stdout


def test_an_alpha_that_cannot_be_is_explained(task: tuple[str, list[str]]) -> None:
    name, _ = task
    assert run("alpha", "1.5", "--task", name).exit_code == 2
    assert run("alpha", "0.9", "--task", name, "--reset").exit_code == 2
    unknown = run("alpha", "0.9", "--task", "nobody")
    assert unknown.exit_code == 2
    assert name in unknown.stderr
    beyond = run("alpha", "0.999", "--task", name, "--show").stdout
    assert "only a refit will tell" in " ".join(beyond.split())


def test_only_a_pause_is_resumed(task: tuple[str, list[str]], redis_url: str) -> None:
    name, (_, second) = task
    registry = connect(redis_url)
    for state, why in ((State.PROBATION, "is probation, not paused"), (State.TRIPPED, "tripped")):
        registry.set_state(name, state, version=second, at=AT, reason="audits")
        result = run("resume", name)
        assert result.exit_code == 1
        assert why in " ".join(result.stderr.split())
        assert registry.active(name).state is state
    assert run("rollback", name, "--to", second).exit_code == 1
    registry.retire(name, at=AT, reason="")
    registry.close()
    result = run("pause", name)
    assert result.exit_code == 1
    assert "no active version" in result.stderr


def test_a_trial_is_shown_withdrawn_and_promoted(
    task: tuple[str, list[str]], broker: str, redis_url: str
) -> None:
    name, (_, second) = task
    artifact = make_surrogate(HashEncoder(), task=name, window="2026-01-07")
    registry = connect(redis_url)

    def start_trial() -> None:
        fence = registry.acquire(name)
        registry.start_trial(artifact, mode="canary", share=0.25, fence=fence, at=AT, reason="")

    start_trial()
    registry.record_audits(name, second, 0, [(1, True), (2, True), (3, False)])
    registry.record_audits(name, artifact.version, 0, [(4, True)])
    (status,) = json.loads(run("status", "--json").stdout)
    audits = status["audits"]
    assert (audits["n"], audits["agreement"]) == (3, 0.6667)
    assert 0.0 < audits["agreement_lower"] < 0.6667
    assert audits["e_value"] > 1.0  # one of three disagrees: some evidence against it
    trial_audits = status["trial"].pop("audits")
    assert (trial_audits["n"], trial_audits["agreement"]) == (1, 1.0)
    assert status["trial"] == {
        "version": artifact.version,
        "mode": "canary",
        "share": 0.25,
    }
    assert run("withdraw", name, "--version", second).exit_code == 1
    assert "no longer on trial" in " ".join(run("withdraw", name).stdout.split())
    assert run("promote", name).exit_code == 1
    start_trial()
    promoted = json.loads(
        run("promote", name, "--version", artifact.version, "--by", "maria", "--json").stdout
    )
    assert (promoted["version"], promoted["previous"]) == (artifact.version, second)
    assert json.loads(run("status", "--json").stdout)[0]["trial"] is None
    assert json.loads(run("rollback", name, "--json").stdout)["version"] == second
    registry.close()
    assert [(a.kind, a.version) for a in announcements(broker, name, 3)] == [
        (AnnouncementKind.WITHDRAWN, artifact.version),
        (AnnouncementKind.PROMOTED, artifact.version),
        (AnnouncementKind.ROLLED_BACK, second),
    ]


def test_people_see_audits_and_the_trial(
    task: tuple[str, list[str]], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (_, second) = task
    monkeypatch.setattr(console, "width", 250)
    artifact = make_surrogate(HashEncoder(), task=name, window="2026-01-07")
    registry = connect(redis_url)
    fence = registry.acquire(name)
    registry.start_trial(artifact, mode="canary", share=0.25, fence=fence, at=AT, reason="")
    registry.record_audits(name, second, 0, [(1, True), (2, False)])
    registry.close()
    shown = run("status").stdout
    assert "2, 50.0% agree" in shown
    assert f"{artifact.version} (canary 25%)" in shown


def test_replay_publishes_what_is_not_test(
    task: tuple[str, list[str]], broker: str, traces: Path
) -> None:
    name, _ = task
    result = run("replay", str(traces), "--task", name, "--json")
    assert json.loads(result.stdout)["published"] == 702
    raw = [decode(value, RawTrace) for value in read(broker, "traces.raw", 702)]
    assert len(raw) == 702
    assert {trace.task for trace in raw} == {name}
    assert all(trace.occurred_at and trace.occurred_at.year == 2025 for trace in raw)
    wrong = run("replay", str(traces), "--task", "unheard-of")
    assert wrong.exit_code == 2
    assert name in wrong.stderr


@pytest.mark.parametrize(
    "days",
    [("--start", "9999-12-31", "--days", "5"), ("--days", "2000000000"), ("--start", "1969-01-01")],
)
def test_days_that_no_trace_may_have_are_explained(
    task: tuple[str, list[str]], traces: Path, days: tuple[str, ...]
) -> None:
    wrong = run("replay", str(traces), "--task", task[0], *days)
    assert wrong.exit_code == 2
    assert isinstance(wrong.exception, SystemExit)
    assert "between the years 1971 and 9000" in " ".join(wrong.stderr.split())


def test_status_shows_a_fit_that_failed(
    task: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = task
    assert json.loads(run("status", "--json").stdout)[0]["last_fit"] is None
    with open_registry() as (registry, _):
        note = FitNote(
            window="2026-01-07", verdict="failed", reason="the fit failed: no memory",
            at=datetime(2026, 1, 8, tzinfo=UTC),
        )  # fmt: skip
        registry.note_fit(name, note)
    (status,) = json.loads(run("status", "--json").stdout)
    assert (status["last_fit"]["verdict"], status["last_fit"]["window"]) == ("failed", "2026-01-07")
    said = " ".join(run("status").stdout.split())
    assert f"{name}: the fit failed: no memory. The next window tries again." in said


@pytest.mark.parametrize(
    ("when", "spent", "state", "said"),
    [
        ("wait", Spent(), "uncounted", "nothing is counted in Redis today"),
        ("wait", Spent(0.5, 3), "open", "$0.50 of $2.00, 3 of 10 calls; 70.0% left"),
        ("wait", Spent(2.1, 3), "waiting", "requests wait until the day ends"),
        ("unavailable", Spent(0.5, 10), "unavailable", "are answered 'unavailable'"),
    ],
)
def test_status_shows_what_is_left_of_a_budget(
    task: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    when: str,
    spent: Spent,
    state: str,
    said: str,
) -> None:
    name, _ = task
    budget = f"{{usd_per_day: 2.0, calls_per_day: 10, when_used_up: {when}}}"
    (tmp_path / "tasks.yaml").write_text(
        f"tasks: [{{name: {name}, timezone: Asia/Tokyo, budget: {budget}}}]"
    )
    monkeypatch.setenv("TRACER_TASKS", str(tmp_path / "tasks.yaml"))
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", f"{name}-{state}.")
    monkeypatch.setattr(console, "width", 400)
    today = datetime.now(ZoneInfo("Asia/Tokyo")).date()
    with closing(open_ledger(os.environ["TRACER_REDIS_URL"], f"{name}-{state}.")) as ledger:
        if spent != Spent():
            ledger.add(name, today, spent)
    (row,) = json.loads(run("status", "--json").stdout)
    assert row["budget"]["state"] == state
    assert (row["budget"]["usd"], row["budget"]["calls"]) == (spent.usd, spent.calls)
    assert row["budget"]["day"] == today.isoformat()
    assert said in " ".join(run("status").stdout.split())


def test_status_of_a_task_without_a_budget(task: tuple[str, list[str]]) -> None:
    (row,) = json.loads(run("status", "--json").stdout)
    assert row["budget"] is None
