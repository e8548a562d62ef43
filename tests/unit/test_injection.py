"""What users write stays what it is: in logs, metrics, Redis keys, file names and errors."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared.bus.base import Message
from shared.bus.dead_letters import dead_letter, read_dead_letter
from shared.bus.errors import InvalidMessage
from shared.clock import FakeClock
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import Request
from shared.registry.disk import DiskCopy
from shared.registry.scripts import Keys
from shared.telemetry.log import JsonFormatter

HOSTILE = [
    'x"}\n{"level":"error","message":"forged"',
    "a\r\nb\x00\x1b[2J",
    "\u2028\u2029\u0085",
    "</script><script>alert(1)</script>",
    "%s %n {0} ${jndi:ldap://x}",
]


def logged(message: str, *arguments: object, **extra: object) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter("test"))
    logger = logging.Logger("hostile")  # noqa: LOG001  one that no other test sees
    logger.addHandler(handler)
    logger.error(message, *arguments, extra=extra)
    return out.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_line_is_one_line_whatever_is_in_it(text: str) -> None:
    written = logged("reason: %s", text, label=text)
    assert written.endswith("\n")
    assert len(written[:-1].splitlines()) == 1
    line = json.loads(written)
    assert (line["message"], line["label"], line["level"]) == (f"reason: {text}", text, "error")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_metrics_label_does_not_end_its_sample(text: str) -> None:
    registry = CollectorRegistry()
    Counter("hostile_total", "x", ["task"], registry=registry).labels(text).inc()
    exposed = generate_latest(registry).decode()
    samples = [
        sample
        for family in text_string_to_metric_families(exposed)
        for sample in family.samples
        if sample.name == "hostile_total"
    ]
    assert [(sample.labels, sample.value) for sample in samples] == [({"task": text}, 1.0)]


@pytest.mark.parametrize(
    "task", [*HOSTILE, "a:b", "a}b", "{a}", "../x", "a/b", "A", "", "a" * 64, "a\n", "tracer:*"]
)
def test_no_name_but_a_tasks_becomes_a_key_or_a_file(task: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a task name"):
        Keys.of(task)
    with pytest.raises(ValueError, match="not a task name"):
        DiskCopy(tmp_path).load(task)
    document = json.dumps({"v": 1, "id": "x", "task": task, "input": "y"}).encode()
    with pytest.raises(InvalidEvent):
        decode(document, Request)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_in_a_dead_letter_is_what_it_was(text: str) -> None:
    message = Message("requests", 0, 1, b"k", text.encode(), (), 0)
    record = dead_letter(
        message, service="router", error=InvalidMessage(f"unknown task {text!r}", field="task"),
        at=FakeClock().now(), topic="dead-letters",
    )  # fmt: skip
    letter = read_dead_letter(
        Message("dead-letters", 0, 0, record.key, record.value, record.headers)
    )
    assert "\n" not in letter.message
    assert letter.value == text.encode()
