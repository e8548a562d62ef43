"""Whatever is in a topic, in a call, or in the registry: an answer or a reason, never a crash.

The short form; `make fuzz SECONDS=60` searches longer, guided by coverage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.contracts.topics import Topic
from tests.contract.schema_tools import KINDS, example_files, schema_of
from tests.fuzzing.handlers import Handlers
from tests.fuzzing.mutating import mutated
from tests.fuzzing.schemas import documents
from tests.fuzzing.targets import TARGETS, codecs, seeds

READ = (Topic.TRACES_RAW, Topic.TRACES, Topic.REQUESTS, Topic.DEFERRED)
ROOT = Path(__file__).resolve().parents[2]
RELAXED = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                           HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


NASTY = st.sampled_from(
    [
        "\0", "a\0b",
        "\u202egnp.exe", "👩‍👩‍👧‍👦" * 100, "مرحبا", "\ud83d", "\r\nHTTP/1.1 200 OK", "{{7*7}}",
        "<script>alert(1)</script>", "'; DROP TABLE traces;--", "../../etc/passwd", "${jndi:ldap://x}",
        "\ufeff", "\u2028", "a" * 40_000, "", " ", "NaN", "💩", "İ", "ﬀ", "\x1b[31m", "%s%n",
    ]
)  # fmt: skip
ODD: st.SearchStrategy[Any] = st.one_of(
    NASTY, st.none(), st.booleans(), st.integers(), st.sampled_from([1 << 63, -(1 << 64), 10**400]),
    st.floats(), st.just([]), st.just({}), st.lists(NASTY, max_size=3),
    st.dictionaries(NASTY, st.integers(), max_size=3),
)  # fmt: skip


def dump(document: Any) -> bytes:
    """NaN and Infinity as Python writes them, lone surrogates as escapes: not what is allowed."""
    return json.dumps(document).encode()


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in it."""
    inner = (
        document.items() if isinstance(document, dict)
        else enumerate(document) if isinstance(document, list) else ()
    )  # fmt: skip
    return [path, *(found for key, value in inner for found in places(value, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("topic", READ)
@RELAXED
@given(data=st.data())
def test_events_as_the_schema_describes_them(
    handlers: Handlers, topic: Topic, data: st.DataObject
) -> None:
    document = data.draw(documents(schema_of(topic)))
    handlers.hold(topic, dump(document))


@pytest.mark.parametrize("topic", READ)
@RELAXED
@given(data=st.data())
def test_events_with_something_odd_in_them(
    handlers: Handlers, topic: Topic, data: st.DataObject
) -> None:
    document = json.loads(data.draw(st.sampled_from(example_files(topic))).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        document = put(document, path, data.draw(ODD))
    task = data.draw(st.sampled_from(["support", "intents", None]))
    if isinstance(document, dict) and task:
        document = {**document, "task": task}  # not in place: it may be one of ODD's own
    handlers.hold(topic, dump(document))
    handlers.call(dump({"requests": [document]}))


@pytest.mark.parametrize("topic", READ)
@RELAXED
@given(data=st.data())
def test_events_with_damaged_bytes(handlers: Handlers, topic: Topic, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(example_files(topic))).read_bytes()
    at = data.draw(st.integers(0, len(good)))
    piece = data.draw(
        st.sampled_from([b"\xff", b"\x00", b"\xc0\x80", b"\xed\xa0\x80", b"{", b'"', b"\\u0000"])
        | st.binary(max_size=8)
    )
    value = good[:at] + piece + good[at + data.draw(st.integers(0, 8)) :]
    handlers.hold(topic, value)
    handlers.call(value)


@pytest.mark.parametrize("topic", READ)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("empty", b""),
        ("deep list", b"[" * 200_000),
        ("deep object", b'{"metadata":' * 50_000),
        ("a megabyte", b'{"input": "' + b"a" * 1_000_000 + b'"}'),
        ("two megabytes of emoji", b'{"input": "' + "💩".encode() * 500_000 + b'"}'),
        ("not utf-8", b'{"id": "\xff\xfe"}'),
        ("utf-16", '{"id": "x"}'.encode("utf-16")),
        ("a number too long", b'{"v": ' + b"9" * 100_000 + b"}"),
        ("a version of tomorrow", b'{"v": 2, "id": "x", "task": "support"}'),
        ("nan", b'{"v": 1, "id": "x", "task": "support", "accept_score": NaN}'),
        ("an array", b"[]"),
        ("null", b"null"),
    ],
)
def test_what_is_no_event_is_a_dead_letter_with_a_reason(
    handlers: Handlers, topic: Topic, name: str, value: bytes
) -> None:
    (record,) = handlers.hold(topic, value)
    assert record.topic == Topic.DEAD_LETTERS


@pytest.mark.parametrize("topic", READ)
def test_an_unknown_task_is_a_dead_letter_that_names_it(handlers: Handlers, topic: Topic) -> None:
    document = json.loads(example_files(topic)[0].read_bytes())
    document.get("request", document)["task"] = "unheard-of"
    records = handlers.hold(topic, dump(document))
    (letter,) = [record for record in records if record.topic == Topic.DEAD_LETTERS]
    assert b"unheard-of" in dict(letter.headers)["__connect.errors.exception.message"]


@pytest.mark.parametrize("topic", sorted(set(KINDS) - {Topic.DEAD_LETTERS}))
@RELAXED
@given(data=st.data())
def test_codecs_take_what_schemas_describe_or_say_why_not(
    topic: Topic, data: st.DataObject
) -> None:
    codecs(dump(data.draw(documents(schema_of(topic)))))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_where_the_search_begins_and_what_it_found_before(target: str) -> None:
    tried = 0
    for data in seeds(target):
        TARGETS[target](data)
        for cut in (1, len(data) // 2, len(data) - 1):
            TARGETS[target](data[:cut])
        tried += 1
    assert tried


def test_mutations_are_other_documents_of_that_size_and_come_again() -> None:
    """What the search is fed: mostly documents, or it would never get beyond the parser."""
    known = [data for data in seeds("events") if len(data) < 3_000]
    parsed = 0
    for seed in range(400):
        data = known[seed % len(known)]
        made, again = (
            mutated(data, 4_000, seed, bytewise=lambda d, _: d[::-1], known=known, prefix=1)
            for _ in range(2)
        )
        assert made == again
        assert len(made) <= 4_000
        try:
            json.loads(made[1:].decode("utf-8", "surrogatepass"))
        except ValueError:
            continue
        parsed += made not in known
    assert parsed > 200


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="atheris runs on Linux")
def test_a_short_search_guided_by_coverage() -> None:
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing.run", "codecs", "--seconds", "3"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "DONE" in done.stderr
