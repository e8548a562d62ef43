"""Secrets in files: read, masked, and never quoted in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.router.config import RouterSettings
from services.teacher.config import TeacherSettings
from shared.running import MISCONFIGURED, run_service
from shared.settings import ServiceSettings


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("redis://:hunter2@redis:6379/0\n")
    return path


def test_a_secret_comes_from_its_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_REDIS_URL_FILE", str(secret))
    settings = ServiceSettings()
    assert settings.redis_url.get_secret_value() == "redis://:hunter2@redis:6379/0"
    assert "hunter2" not in f"{settings} {settings!r} {settings.describe()}"


def test_each_service_has_its_own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kafka").write_text('{"sasl.password": "hunter2"}')
    (tmp_path / "key").write_text("sk-hunter2")
    (tmp_path / "tokens").write_text(
        '[{"name": "acme", "token": "a-token-of-hunter2-s", "tasks": ["support"]}]'
    )
    monkeypatch.setenv("TRACER_KAFKA_FILE", str(tmp_path / "kafka"))
    monkeypatch.setenv("TRACER_TEACHER_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("TRACER_DOOR_TOKENS_FILE", str(tmp_path / "tokens"))
    teacher = TeacherSettings()
    assert teacher.kafka == {"sasl.password": "hunter2"}
    assert teacher.teacher_api_key.get_secret_value() == "sk-hunter2"
    router = RouterSettings(door_host="0.0.0.0")
    caller = router.tokens().caller("Bearer a-token-of-hunter2-s")
    assert caller is not None
    assert caller.tasks == {"support"}
    assert "hunter2" not in f"{teacher!r} {teacher.describe()} {router!r} {router.describe()}"


def test_only_secrets_come_from_files(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_LOG_LEVEL_FILE", str(secret))
    assert ServiceSettings().log_level == "INFO"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"TRACER_REDIS_URL_FILE": "/nowhere/at/all"}, "TRACER_REDIS_URL_FILE: /nowhere/at/all"),
        ({"TRACER_REDIS_URL": "redis://:x@y"}, "both set: keep one of them"),
        ({"TRACER_KAFKA_FILE": "secret"}, "does not hold JSON"),
    ],
)
def test_what_cannot_be_read_says_which_variable(
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    says: str,
) -> None:
    monkeypatch.setenv("TRACER_REDIS_URL_FILE", str(secret))
    for name, value in environment.items():
        monkeypatch.setenv(name, str(secret) if value == "secret" else value)
    assert run_service("some", ServiceSettings, lambda *_: None) == MISCONFIGURED
    told = capsys.readouterr().err
    assert says in told
    assert "hunter2" not in told
