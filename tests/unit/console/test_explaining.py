"""The process that explains: asked, slow, gone, silent about its end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.console import explaining
from services.console.actions import Refused
from services.console.explaining import ExplainingProcess, NotExplained, TooManyQuestions
from shared.explain.wire import Asked
from shared.registry.base import UnknownVersion

CHILD = """
import json, os, sys, time
os.write(2, b"started\\n")
for line in sys.stdin:
    text = json.loads(line)["texts"][0]
    if text == "die":
        os._exit(3)
    if text == "sleep":
        time.sleep(60)
    if text == "nonsense":
        print("what?", flush=True)
        continue
    if text == "last":
        print(json.dumps({"fault": "place", "message": str(os.getpid())}), flush=True)
        break
    fault = text if text in ("question", "version") else "place"
    print(json.dumps({"fault": fault, "message": str(os.getpid())}), flush=True)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ExplainingProcess]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    made = ExplainingProcess(command=(sys.executable, str(script)), seconds=20.0)
    yield made
    made.close()


def asked(text: str) -> Asked:
    return Asked(task="support", texts=(text,))


def pid(process: ExplainingProcess, text: str = "a") -> int:
    with pytest.raises(NotExplained) as caught:
        process.ask(asked(text))
    return int(str(caught.value))


def test_one_process_answers_one_question_after_another(process: ExplainingProcess) -> None:
    assert pid(process) == pid(process, "b")
    with pytest.raises(Refused):
        process.ask(asked("question"))
    with pytest.raises(UnknownVersion):
        process.ask(asked("version"))


def test_one_that_ended_is_begun_anew(process: ExplainingProcess) -> None:
    first = pid(process, "last")
    assert pid(process) != first


def test_one_that_ends_instead_of_answering_is_said(process: ExplainingProcess) -> None:
    with pytest.raises(NotExplained, match="ended before it answered"):
        process.ask(asked("die"))
    assert pid(process) > 0  # and the next question is answered


def test_one_that_cannot_be_understood_is_said(process: ExplainingProcess) -> None:
    with pytest.raises(NotExplained, match="nonsense"):
        process.ask(asked("nonsense"))


def test_one_that_takes_too_long_is_ended(process: ExplainingProcess) -> None:
    first = pid(process)
    process.seconds = 0.3
    with pytest.raises(NotExplained, match="no answer within"):
        process.ask(asked("sleep"))
    process.seconds = 20.0
    assert pid(process) != first


def test_few_wait_for_their_turn(
    process: ExplainingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid(process)
    process.seconds = 1.5
    said: list[Exception] = []

    def ask() -> None:
        try:
            process.ask(asked("sleep"))
        except (NotExplained, TooManyQuestions) as error:
            said.append(error)

    threads = [threading.Thread(target=ask) for _ in range(explaining.MAX_WAITING + 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(isinstance(error, TooManyQuestions) for error in said) == 3
    assert len(said) == len(threads)


def test_it_ends_with_the_console(process: ExplainingProcess) -> None:
    pid(process)
    child = process._process
    assert child is not None
    process.close()
    assert child.poll() is not None
