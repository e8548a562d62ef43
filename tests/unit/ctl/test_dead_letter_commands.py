"""tracerctl dead-letters over letters in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.ctl import dead_letter_commands
from services.ctl.main import app
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage, Retryable
from shared.bus.redriving import letters_of

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
DEAD = "p-dead-letters"
TASKS = """
tasks:
  - name: support
    sources: [{format: litellm, topic: litellm.logs}]
"""


class Log:
    """The dead-letter topic, one partition of it, and what else was published."""

    def __init__(self) -> None:
        self.dead: list[Message] = []
        self.sent: list[Record] = []
        self.refuses: str | None = None

    def publish(self, records: Sequence[Record]) -> None:
        """All but the records of a topic that takes none."""
        for record in records:
            if record.topic == self.refuses:
                continue
            if record.topic == DEAD:
                offset = len(self.dead)
                self.dead.append(Message(DEAD, 0, offset, record.key, record.value, record.headers))
            else:
                self.sent.append(record)
        if any(record.topic == self.refuses for record in records):
            raise Retryable(f"{self.refuses} takes none")

    def close(self) -> None: ...

    def die(self, topic: str, value: bytes = b"{}") -> None:
        message = Message(topic, 0, 7, None, value)
        error = InvalidMessage("no such label")
        self.publish([dead_letter(message, service="ingest", error=error, at=AT, topic=DEAD)])


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    log = Log()
    monkeypatch.setattr(dead_letter_commands, "_letters", lambda _: letters_of(log.dead)[0])
    monkeypatch.setattr(dead_letter_commands, "_publisher", lambda _: log)
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", "p-")
    monkeypatch.setenv("TRACER_TASKS", str(tmp_path / "tasks.yaml"))
    (tmp_path / "tasks.yaml").write_text(TASKS)
    return log


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead-letters", *arguments])


class TestSources:
    """Topics of other systems, which have no prefix."""

    def test_what_came_from_one_is_put_back(self, log: Log) -> None:
        log.die("litellm.logs")
        log.die("nobodys.logs")
        done = json.loads(run("redrive", "--all", "--json").stdout)
        assert done["redriven"] == ["0:0"]
        assert "nobodys.logs is no topic" in done["refused"][0]["why"]
        assert [record.topic for record in log.sent] == ["litellm.logs"]

    def test_one_is_named_as_it_is_and_ours_with_or_without_the_prefix(self, log: Log) -> None:
        log.die("litellm.logs")
        log.die("p-traces.raw")
        for topic in ("litellm.logs", "traces.raw", "p-traces.raw"):
            assert json.loads(run("list", "--topic", topic, "--json").stdout)["letters"] == 1

    def test_without_a_tasks_file_ours_are_put_back(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACER_TASKS", "not-there.yaml")
        log.die("litellm.logs")
        log.die("p-traces.raw")
        assert json.loads(run("redrive", "--all", "--json").stdout)["redriven"] == ["0:1"]

    def test_a_tasks_file_that_cannot_be_used_is_named(self, log: Log, tmp_path: Path) -> None:
        (tmp_path / "tasks.yaml").write_text("tasks: [{alpha: 2}]")
        log.die("p-traces.raw")
        result = run("redrive", "--all")
        assert result.exit_code == 2
        assert "tasks.yaml" in result.stderr
        assert log.sent == []


def test_at_least_once_loses_no_letter(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_DELIVERY", "at_least_once")
    log.die("p-traces.raw")
    log.refuses = "p-traces.raw"
    failed = run("redrive", "--all")
    assert failed.exit_code == 1
    assert "run it again: without transactions, up to 100" in failed.stderr
    log.refuses = None
    assert json.loads(run("redrive", "--all", "--json").stdout)["redriven"] == ["0:0"]
    assert len(log.sent) == 1


class TestExitCodes:
    """1: not found, or not done."""

    def test_an_id_of_no_letter(self, log: Log) -> None:
        log.die("p-traces.raw")
        result = run("redrive", "0:0", "9:99", "--json")
        assert result.exit_code == 1
        assert "no such dead letters: 9:99" in result.stderr
        done = json.loads(result.stdout)
        assert (done["redriven"], done["missing"]) == (["0:0"], ["9:99"])
        assert len(log.sent) == 1

    def test_none_like_that(self, log: Log) -> None:
        log.die("p-traces.raw")
        result = run("redrive", "--field", "nothing")
        assert result.exit_code == 1
        assert "no dead letters like that" in result.stderr

    @pytest.mark.parametrize("more", [(), ("--dry-run",)])
    def test_all_refused(self, log: Log, more: tuple[str, ...]) -> None:
        log.die("p-decisions")
        result = run("redrive", "--all", *more)
        assert result.exit_code == 1
        assert "Not put back: 1, p-decisions is no topic" in " ".join(result.stdout.split())
        assert "all of them were refused" in result.stderr

    def test_some_refused_is_done(self, log: Log) -> None:
        log.die("p-decisions")
        log.die("p-traces.raw")
        assert run("redrive", "--all", "--dry-run").exit_code == 0
        assert log.sent == []
        assert run("redrive", "--all").exit_code == 0
        assert run("redrive", "--all").exit_code == 1
