"""What a local Kafka says when it cannot run, and what the tests make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.kafka.local_kafka import KafkaUnavailable, LocalKafka, fetch, version
from tests import kafka_fixtures


def maven(folder: Path, script: str) -> str:
    command = folder / "mvn"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return str(command)


# Finds -DoutputDirectory=... among its arguments and puts a jar there.
COPY = 'for a; do case $a in -DoutputDirectory=*) touch "${a#*=}/kafka.jar";; esac; done'


def test_the_version_is_that_of_the_pom() -> None:
    assert re.fullmatch(r"4\.\d+\.\d+", version())


def test_it_fetches_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = maven(tmp_path, f'echo run >> "{log}"; {COPY}')
    libs = fetch(maven=command, cache=tmp_path / "cache")
    assert [jar.name for jar in libs.iterdir()] == ["kafka.jar"]
    assert fetch(maven=command, cache=tmp_path / "cache") == libs
    assert log.read_text() == "run\n"


def test_no_maven_is_said(tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailable, match="no Maven: 'no-such-mvn'"):
        fetch(maven="no-such-mvn", cache=tmp_path)


def test_a_failed_fetch_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = maven(tmp_path, "echo '[ERROR] Unknown host'; exit 1")
    with pytest.raises(KafkaUnavailable, match=r"could not fetch .*Unknown host"):
        fetch(maven=command, cache=tmp_path / "cache", attempts=1)
    assert [path.name for path in (tmp_path / "cache" / version()).iterdir()] == ["lock"]


def test_a_passing_fault_of_the_network_is_survived(tmp_path: Path) -> None:
    once = tmp_path / "once"
    command = maven(tmp_path, f'[ -e "{once}" ] || {{ touch "{once}"; exit 1; }}; {COPY}')
    assert fetch(maven=command, cache=tmp_path / "cache", attempts=2).is_dir()


def test_no_java_is_said() -> None:
    with pytest.raises(KafkaUnavailable, match="no Java: 'no-such-java'"):
        LocalKafka(java="no-such-java")


def test_without_kafka_tests_are_skipped_with_the_reason_or_fail_when_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unavailable() -> LocalKafka:
        raise KafkaUnavailable("no Java here")

    monkeypatch.setattr(kafka_fixtures, "LocalKafka", unavailable)
    monkeypatch.delenv(kafka_fixtures.REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^no Java here$"):
        kafka_fixtures.start_kafka()
    monkeypatch.setenv(kafka_fixtures.REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="no Java here"):
        kafka_fixtures.start_kafka()
