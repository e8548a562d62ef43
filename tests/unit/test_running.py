"""How a service ends: told, unable, or misconfigured."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from shared.bus.errors import Fatal
from shared.contracts.tasks import InvalidTasks
from shared.redaction.load import InvalidRedactor
from shared.running import Surroundings, run_service
from shared.settings import ServiceSettings


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_stopped_by_a_signal_it_ends_well() -> None:
    def run(settings: ServiceSettings, around: Surroundings) -> None:
        signal.raise_signal(signal.SIGTERM)
        assert around.stop.wait(5)

    assert run_service("test", ServiceSettings, run) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Fatal("fenced"), 1),
        (InvalidTasks("tasks.yaml: no such file"), 2),
        (InvalidRedactor("task a: redact"), 2),
    ],
)
def test_what_cannot_be_repaired_by_waiting_ends_it(error: Exception, code: int) -> None:
    def run(settings: ServiceSettings, around: Surroundings) -> None:
        raise error

    assert run_service("test", ServiceSettings, run) == code


def test_a_wrong_setting_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACER_DELIVERY", "hunter2")

    def run(settings: ServiceSettings, around: Surroundings) -> None:
        raise AssertionError("it must not run")

    assert run_service("test", ServiceSettings, run) == 2
    said = capsys.readouterr().err
    assert "delivery" in said
    assert "hunter2" not in said


def test_what_nobody_foresaw_is_not_hidden() -> None:
    def run(settings: ServiceSettings, around: Surroundings) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_service("test", ServiceSettings, run)
