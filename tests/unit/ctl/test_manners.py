"""What holds of every command of tracerctl: help, exit codes, where things are printed, no colours
in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from services.ctl import output
from services.ctl.main import app, run
from services.ctl.output import fail, print_table

ROOT = typer.main.get_command(app)
runner = CliRunner()


def every(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in sorted(children.items()):
        yield from every(child, (*path, name))


COMMANDS = dict(every())
ALWAYS_JSON = {("models", "show")}  # a manifest is JSON


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_it_explains_itself(path: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    command = COMMANDS[path]
    assert (command.help or "").strip().endswith((".", "?")) or "\n" in command.help
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert getattr(parameter, "help", None), f"{path} {parameter.opts}: says nothing"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_it_does_not_know_is_a_usage_error(path: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*path, "--no-such-option"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--no-such-option" in result.stderr.replace("\n", "")


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - ALWAYS_JSON), ids=" ".join)
def test_results_can_be_had_as_json(path: tuple[str, ...]) -> None:
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}
    assert "--json" in options, f"tracerctl {' '.join(path)} has no --json"


def tracerctl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.ctl.main", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"TRACER_UNSIGNED": "allow"} | environment,
        check=False,
        timeout=60,
    )


def test_an_error_is_one_sentence_on_the_other_channel_without_colours() -> None:
    done = tracerctl("scan", "no-such-file.jsonl")
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "no-such-file.jsonl" in done.stderr
    assert "\x1b[" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_is_away_is_said_with_what_to_look_at() -> None:
    done = tracerctl("status", TRACER_REDIS_URL="redis://:hush@127.0.0.1:1/0")
    assert done.returncode == 1
    assert "TRACER_REDIS_URL" in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_all_there_is_on_the_first_channel(redis_url: str) -> None:
    done = tracerctl("status", "--json", TRACER_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_completion_for_the_shell_in_use() -> None:
    # Told, not found out from the parents of the test process, which may be no shell.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = tracerctl("--show-completion", "bash", **told)
    assert done.returncode == 0
    assert "complete" in done.stdout


HOSTILE = [
    "unknown label '[/red]'", "[bold red]forged[/]", "[link=https://evil.example]x[/link]",
    "a\x1b]0;title\x07\x1b[2J\x1b[31mred", "b\x9b31mred", "c\u202egnp.exe", "d\roverwritten",
    ":smile:",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_wrote_is_shown_and_does_nothing(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Messages of dead letters hold what a sender made up; an operator reads them in a terminal."""
    output.print_table("title", ["why"], [(text,)])
    output.console.print(text)
    with pytest.raises(typer.Exit):
        output.fail(text)
    said = capsys.readouterr()
    for shown in (said.out, said.err):
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
        assert output.plain_text(text) in shown
    output.print_json({"why": text})
    document = capsys.readouterr().out
    assert json.loads(document) == {"why": text}
    assert not set(document) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}


def test_nothing_but_output_makes_a_console_for_results() -> None:
    """So that what holds of it holds of every command."""
    folder = Path(output.__file__).parent
    made = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if re.search(r"\bConsole\(", path.read_text())
    }
    assert made == {"encoder_commands.py"}  # which shows an encoder's own facts


def test_what_others_wrote_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Reasons, texts and paths are no markup: `[/x]` ended a command, `[red]` vanished."""
    said = "a [/x] and a [red] and :key:"
    print_table(said, [said], [[said]])
    with pytest.raises(typer.Exit):
        fail(said)
    printed = capsys.readouterr()
    assert printed.out.count(said) == 3
    assert printed.err == f"error: {said}\n"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for those who want them: https://no-color.org."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    seen = {}
    for name, environment in [
        ("a terminal", {"TERM": "xterm-256color"}),
        ("NO_COLOR", {"TERM": "xterm-256color", "NO_COLOR": "1"}),
    ]:
        own, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", "from services.ctl.output import fail; fail('no such file')"],
            stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | environment,
        ) as process:  # fmt: skip
            os.close(theirs)
            said = b""
            with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
                while part := os.read(own, 1000):
                    said += part
            process.wait(60)
        os.close(own)
        assert b"no such file" in said
        seen[name] = b"\x1b[31m" in said
    assert seen == {"a terminal": True, "NO_COLOR": False}


@pytest.mark.parametrize("name", ["nonsense", "group.id", "delivery.timeout.ms"])
@pytest.mark.parametrize("command", [["topics", "create"], ["dead-letters", "list"]])
def test_a_property_that_kafka_does_not_know_or_that_is_ours_is_no_traceback(
    command: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRACER_KAFKA", f'{{"{name}": "x"}}')
    monkeypatch.setattr(sys, "argv", ["tracerctl", *command])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "TRACER_KAFKA" in said
    assert name in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("width", "said"), [(80, "  active version: v1"), (160, "│ v1")])
def test_many_columns_on_a_narrow_terminal_are_a_paragraph_a_row(
    width: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status` at 80 columns was strips of four letters."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(output, "console", output.PlainConsole())
    columns = ["task", "active version", *(f"more {i}" for i in range(9))]
    output.print_table("tasks", columns, [["support", "v1", *[""] * 9]])
    shown = capsys.readouterr().out
    assert said in shown
    assert ("more 3" in shown) is (width == 160)  # what is empty is left out of paragraphs
