"""How a service ends: told, unable, or misconfigured."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from services.ingest import main as ingest
from services.router.config import RouterSettings
from services.teacher.config import TeacherSettings
from shared.bus.errors import Fatal
from shared.contracts.tasks import InvalidTasks
from shared.encoder.errors import BrokenEncoder
from shared.redaction.load import InvalidRedactor
from shared.redis_clients import client
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
        (BrokenEncoder("data/encoder/encoder.json is missing"), 2),
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
    assert said.startswith("test: TRACER_DELIVERY: ")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("settings", "variable", "value", "says"),
    [
        (
            ServiceSettings,
            "LOG_LEVEL",
            "verbose",
            "must be DEBUG, INFO, WARNING, ERROR or CRITICAL",
        ),
        (ServiceSettings, "HEALTH_PORT", "99999", "less than or equal to 65535"),
        (ServiceSettings, "HEALTH_PORT", "-1", "greater than or equal to 0"),
        (ServiceSettings, "HEALTH_PORT", "", "a valid integer"),
        (ServiceSettings, "BOOTSTRAP_SERVERS", "", "must be brokers as host:port"),
        (ServiceSettings, "BOOTSTRAP_SERVERS", "a:9092,", "must be brokers as host:port"),
        (ServiceSettings, "BOOTSTRAP_SERVERS", "a:9092 b:9092", "must be brokers as host:port"),
        (ServiceSettings, "BOOTSTRAP_SERVERS", "a:99999", "must be brokers as host:port"),
        (ServiceSettings, "TOPIC_PREFIX", "a b", "should match pattern"),
        (ServiceSettings, "TOPIC_PREFIX", "ü", "should match pattern"),
        (ServiceSettings, "TOPIC_PREFIX", "a\n", "should match pattern"),
        (ServiceSettings, "TOPIC_PREFIX", "a" * 201, "at most 200 characters"),
        (ServiceSettings, "KAFKA", "sasl.password=hunter2", "not JSON"),
        (RouterSettings, "THREADS", "0", "greater than or equal to 1"),
        (RouterSettings, "THREADS", "-3", "greater than or equal to 1"),
        (RouterSettings, "MAX_BATCH", "abc", "a valid integer"),
        (RouterSettings, "DOOR_TOKEN", "hunter2", "has less than 16 characters"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    settings: type[ServiceSettings],
    variable: str,
    value: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRACER_UNSIGNED", "allow")
    monkeypatch.setenv(f"TRACER_{variable}", value)
    assert run_service("test", settings, lambda *_: None) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"test: TRACER_{variable}")
    assert says in said
    assert said.count("\n") == 1
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "servers", ["kafka", "a:9092, b:9093", "SASL_SSL://b-1.msk:9096", "[::1]:9092", "10.0.0.1:9092"]
)
def test_brokers_as_clients_take_them(servers: str) -> None:
    assert ServiceSettings(bootstrap_servers=servers).bootstrap_servers == servers


def test_what_is_no_address_of_redis_is_told_as_a_setting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_REDIS_URL", "redis://:hunter2@redis:port")

    def run(settings: ServiceSettings, around: Surroundings) -> None:
        client(settings.redis_url.get_secret_value())

    # Its own handlers would replace the one that looks on here.
    monkeypatch.setattr("shared.running.configure_logging", lambda *_: None)
    assert run_service("test", ServiceSettings, run) == 2
    assert "TRACER_REDIS_URL: not a Redis URL; expected redis://" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_empty_value_unsets_what_may_be_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEMPERATURE", "MAX_TOKENS", "PRICES", "TASKS"):
        monkeypatch.setenv(f"TRACER_TEACHER_{name}", "")
    monkeypatch.setenv("TRACER_TRUSTED_KEYS", "")
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", "")
    settings = TeacherSettings()
    assert settings.teacher_temperature is None
    assert settings.teacher_max_tokens is None
    assert settings.teacher_prices is None
    assert settings.teacher_tasks is None
    assert settings.trusted_keys is None
    assert settings.topic_prefix == ""


@pytest.mark.parametrize(
    ("variable", "value"), [("LOG_LEVEL", "verbose"), ("HEALTH_PORT", "99999")]
)
def test_ingest_tells_them_as_the_others_do(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"TRACER_{variable}", value)
    assert ingest.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ingest: TRACER_{variable}: ")
    assert said.count("\n") == 1


def test_what_nobody_foresaw_is_not_hidden() -> None:
    def run(settings: ServiceSettings, around: Surroundings) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_service("test", ServiceSettings, run)
