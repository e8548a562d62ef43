"""What README and tutorial tell the reader to type is run, in their order; what cannot run here
says why, and is checked in another way. Every other document names commands that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.main import app
from services.router.calls import read_call
from shared.contracts.codec import decode
from shared.contracts.events import Decision, RawTrace, Request
from tests.docs.commands import ROOT, Command, commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

READ = ("README.md", "docs/tutorial.md")
ALL = [command for document in READ for command in commands(document)]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: a folder, and what they have started by then."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    for name in ("config", "schemas"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    with EmbeddedBroker(folder / "broker") as broker, EmbeddedRedis(folder / "redis") as redis:
        environment = os.environ | {
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TRACER_CACHE": os.environ.get("TRACER_CACHE", str(ROOT / ".cache")),
            "TRACER_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "TRACER_REDIS_URL": redis.url,
            "TRACER_TASKS": "config/tasks.yaml",
            "TRACER_STORE": str(folder / "windows"),
            "TRACER_UNSIGNED": "allow",
        }
        seat = Desk(folder, environment)
        # README's reader comes with a file of their own; here it is the tutorial's.
        made = seat.run("python -m services.ctl.sample --out traces.jsonl --n 2000 --days 5")
        assert made.returncode == 0, made.stderr
        yield seat


def _make(command: Command) -> None:
    """Each of these is a test suite or a demo of its own."""
    assert command.text.split()[1] in TARGETS


def _compose(command: Command) -> None:
    """No Docker engine here: the profile exists."""
    profiles = {profile for s in COMPOSE["services"].values() for profile in s.get("profiles", ())}
    named = re.findall(r"--profile (\S+)", command.text)
    assert set(named) <= profiles


def _kcat(command: Command) -> None:
    """Needs a broker with listeners of its own: what is sent is an event of its topic."""
    sent = re.search(r"echo '(.*?)'", command.text, re.S)
    if sent is None:
        assert "-C" in command.text
        return
    kind = RawTrace if "traces.raw" in command.text else Request
    assert decode(sent[1].encode(), kind).task == "support"


def _curl(command: Command) -> None:
    """Needs routers: what is sent is a call the door takes."""
    body = re.search(r"-d '(.*?)'", command.text, re.S)
    assert body is not None
    assert len(read_call(body[1].encode(), lambda request: None).requests) == 1


def _stored_days(command: Command) -> None:
    """Needs a trainer that has run for days: the options are the command's."""
    done = subprocess.run(
        [f"{sys.prefix}/bin/tracerctl", "whatif", "--help"],
        capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    for option in re.findall(r"--[a-z-]+", command.text):
        assert option in done.stdout


OTHERWISE = {
    r"^make ": _make,
    r"^docker compose": _compose,
    r"kcat": _kcat,
    r"^curl": _curl,
    r"whatif --task": _stored_days,
}


@pytest.mark.parametrize("command", ALL, ids=str)
def test_the_reader_gets_what_the_document_says(command: Command, desk: Desk) -> None:
    for pattern, check in OTHERWISE.items():
        if re.search(pattern, command.text, re.M):
            check(command)
            return
    done = desk.run(command.text)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_there_are_commands_to_run() -> None:
    """The extraction finds what a person sees."""
    texts = [command.text for command in ALL]
    assert any(text.startswith("tracerctl scan") for text in texts)
    assert any(text.startswith(".venv/bin/tracerctl whatif --data") for text in texts)
    run = [text for text in texts if not any(re.search(p, text, re.M) for p in OTHERWISE)]
    assert len(run) >= 6


def test_the_answer_of_the_door_that_readme_shows_is_a_decision() -> None:
    (call,) = [command for command in ALL if command.text.startswith("curl")]
    asked = re.search(r"-d '(.*?)'", call.text, re.S)
    shown = re.search(r'^\{"request_id".*$', (ROOT / "README.md").read_text(), re.M)
    assert asked
    assert shown
    decision = decode(shown[0].encode(), Decision)
    (request,) = read_call(asked[1].encode(), lambda request: None).requests
    assert (decision.request_id, decision.task) == (request.id, request.task)


DOCUMENTS = sorted(["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_commands_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for words in re.findall(r"`(?:\.venv/bin/)?tracerctl ([^`]+)`", text):
        _exists(typer.main.get_command(app), words.split(), document)
    for target in re.findall(r"`make ([a-z][a-z-]*)", text):
        assert target in TARGETS, f"{document}: make {target}"


def _exists(command: Any, words: list[str], document: str) -> None:
    while hasattr(command, "commands") and words:
        names = re.split(r"\||, ", words[0])
        for name in names:
            assert name in command.commands, f"{document}: tracerctl … {name}"
        command, words = command.commands[names[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word in words:
        option = word.strip("[],.").partition("=")[0]
        if option.startswith("--"):
            assert option in known or option == "--json", f"{document}: {option} of {command.name}"
