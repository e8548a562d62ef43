"""`tracerctl report` and `explain` on a real Redis and a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from doubles import HashEncoder
from surrogates import LABELS, make_surrogate, text_of
from typer.testing import CliRunner, Result

from services.ctl.demo.report import write_last_report
from services.ctl.main import app
from services.ctl.report_command import newest_of
from shared.contracts.events import Trace
from shared.contracts.report import decode_report
from shared.contracts.topics import schemas_folder
from shared.registry.base import State
from shared.registry.redis import RedisRegistry, connect
from shared.store.parquet import WindowStore
from tests.artifacts import make_report

pytestmark = pytest.mark.redis
AT = datetime(2026, 1, 5, tzinfo=UTC)
SECRET = "ann@example.org"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


class Bench:
    """A task with an active version, its report, and a window of traces."""

    def __init__(self, registry: RedisRegistry, folder: Path, url: str) -> None:
        self.task, self.url, self.folder = f"support-{uuid4().hex[:8]}", url, folder
        self.registry = registry
        artifact = make_surrogate(HashEncoder(), task=self.task)
        fence = registry.acquire(self.task)
        registry.publish(artifact, fence=fence, at=AT, reason="")
        self.version = artifact.version
        self.write_task()
        WindowStore(str(folder / "windows")).write(
            self.task, date(2026, 1, 5),
            [Trace(id=f"t{i}", task=self.task, input=f"{text_of(LABELS[i % 3])} {SECRET}",
                   teacher=LABELS[i % 3], occurred_at=AT) for i in range(30)],
        )  # fmt: skip

    def write_task(self, more: str = "") -> None:
        path = self.folder / "tasks.yaml"
        path.write_text(f"tasks:\n  - name: {self.task}\n{more}")

    def explain(self, *arguments: str) -> Result:
        return run(
            "explain", *arguments, "--task", self.task, "--store", str(self.folder / "windows")
        )


@pytest.fixture
def bench(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    monkeypatch.setenv("TRACER_TASKS", str(tmp_path / "tasks.yaml"))
    encoder = HashEncoder()
    monkeypatch.setattr(
        "services.ctl.explain_command._encoder", lambda folder: (encoder, encoder, None)
    )
    registry = connect(redis_url)
    yield Bench(registry, tmp_path, redis_url)
    registry.close()


class TestReport:
    def test_without_one_it_says_where_they_come_from(self, bench: Bench) -> None:
        result = run("report", "--task", bench.task, "--json")
        assert result.exit_code == 1
        assert "the trainer makes one with each fit" in result.stderr

    def test_is_printed_as_it_is_stored(self, bench: Bench) -> None:
        report = make_report(bench.task, bench.version)
        bench.registry.put_report(report)
        result = run("report", "--task", bench.task, "--json")
        assert result.exit_code == 0, result.output
        assert decode_report(result.stdout_bytes) == report

    def test_moves_no_cursor(self, bench: Bench) -> None:
        report = make_report(bench.task, bench.version)
        report = msgspec.structs.replace(report, summary="a\x9b31m \u202e b")
        bench.registry.put_report(report)
        result = run("report", "--task", bench.task, "--json")
        assert not set(result.stdout) & {"\x9b", "\u202e"}
        assert decode_report(result.stdout_bytes) == report

    def test_is_written_as_a_page(self, bench: Bench) -> None:
        bench.registry.put_report(make_report(bench.task, bench.version))
        page = bench.folder / "report.html"
        result = run("report", "--task", bench.task, "--out", str(page))
        assert result.exit_code == 0, result.output
        assert bench.version in page.read_text(encoding="utf-8")

    def test_of_a_refused_window_is_found_by_the_window(self, bench: Bench) -> None:
        refused = make_report(bench.task, None, window="2026-01-06")
        bench.registry.put_report(refused)
        result = run("report", "--task", bench.task, "--version", "2026-01-06", "--json")
        assert decode_report(result.stdout_bytes) == refused
        result = run("report", "--task", bench.task, "--json")  # the newest there is
        assert decode_report(result.stdout_bytes) == refused
        older, later = "2026-01-05-0123456789ab", "2026-01-07-0123456789ab"
        assert newest_of([refused.key, older]) == refused.key  # though versions come last
        assert newest_of([refused.key, later]) == later
        assert newest_of([]) is None
        result = run("report", "--task", bench.task, "--version", "2026-01-07", "--json")
        assert result.exit_code == 1
        assert "unpublished-2026-01-06" in result.stderr

    def test_shows_no_text_once_the_tasks_previews_are_off(self, bench: Bench) -> None:
        example = schemas_folder() / "reports" / "examples" / "typical.json"
        stored = decode_report(example.read_bytes())
        stored = msgspec.structs.replace(stored, task=bench.task, version=bench.version)
        bench.registry.put_report(stored)
        text = stored.confusions[0].a_as_b[0].texts[0]
        assert text in run("report", "--task", bench.task, "--json").stdout
        bench.write_task("    previews: false\n")
        out = bench.folder / "report.html"
        told = run("report", "--task", bench.task, "--json", "--out", str(out))
        assert told.exit_code == 0
        assert text not in told.stdout + out.read_text(encoding="utf-8")

    def test_needs_to_know_what_to_make(self, bench: Bench) -> None:
        result = run("report", "--task", bench.task)
        assert result.exit_code == 2
        assert "--out FILE.html or --json" in result.stderr

    def test_of_the_demos_last_day_is_written_beside_its_results(self, bench: Bench) -> None:
        bench.registry.put_report(make_report(bench.task, bench.version))
        summary = {"task": bench.task, "days": [{"version": bench.version, "day": "2026-01-05"}]}
        path = write_last_report(bench.url, summary, bench.folder)
        assert path == bench.folder / "report.html"
        assert bench.version in path.read_text(encoding="utf-8")


class TestExplain:
    def test_says_everything_as_json(self, bench: Bench) -> None:
        result = bench.explain("invoice charged payment", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["version"] == bench.version
        assert found["label"] == "billing"
        assert found["handled"]
        assert [stage["stage"] for stage in found["stages"]] == ["lexical", "semantic"]
        assert found["words"][0]["text"] == "invoice"
        near = found["nearest_handled"] + found["nearest_deferred"]
        assert near
        assert SECRET in near[0]["texts"][0]

    def test_says_it_to_people(self, bench: Bench) -> None:
        result = bench.explain("invoice parcel")
        assert result.exit_code == 0, result.output
        assert "lexical" in result.stdout
        assert ("Handled" in result.stdout) or ("would have made it handled" in result.stdout)

    def test_says_when_routers_defer_what_the_version_handles(self, bench: Bench) -> None:
        assert "at present" not in bench.explain("invoice charged payment").stdout
        bench.registry.set_state(
            bench.task, State.PAUSED, version=bench.version, at=AT, reason="a new prompt"
        )
        told = " ".join(bench.explain("invoice charged payment").stdout.split())
        assert "Yet routers defer it at present: the version is paused" in told

    def test_says_why_each_neighbour_is_on_its_side(self, bench: Bench) -> None:
        found = json.loads(bench.explain("invoice parcel", "--json").stdout)
        for side, sure in (("nearest_handled", True), ("nearest_deferred", False)):
            for near in found[side]:
                assert near["why"].startswith("sure enough") == sure

    def test_redacts_and_hides_as_the_task_says(self, bench: Bench) -> None:
        bench.write_task("    redact: builtin\n")
        found = json.loads(bench.explain(f"invoice for {SECRET}", "--json").stdout)
        assert found["texts"] == ["invoice for [EMAIL]"]
        assert SECRET not in json.dumps(found)
        bench.write_task("    previews: false\n")
        found = json.loads(bench.explain("invoice", "--json").stdout)
        assert all(n["texts"] == [] for n in found["nearest_handled"] + found["nearest_deferred"])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("a", "--version", "2026-01-01-000000000000"), "has no version"),
            (("a", "--second", "b"), "takes one text"),
        ],
    )
    def test_mistakes_are_explained(
        self, bench: Bench, arguments: tuple[str, ...], said: str
    ) -> None:
        result = bench.explain(*arguments)
        assert result.exit_code == 1
        assert said in result.stderr.replace("\n", " ")

    def test_without_a_store_there_are_no_neighbours(self, bench: Bench) -> None:
        result = run("explain", "a", "--task", bench.task, "--store", "/nowhere", "--json")
        found = json.loads(result.stdout)
        assert found["nearest_handled"] == found["nearest_deferred"] == []
