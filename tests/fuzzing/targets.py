"""What is fuzzed: functions of bytes that return, or raise what a bug raises.

Each names the exceptions that are answers; any other one, an assertion included, is a find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from shared.contracts.codec import InvalidEvent, decode, encode
from shared.contracts.events import Decision, Deferral, ModelAnnouncement, RawTrace, Request, Trace
from shared.contracts.manifest import Stage, decode_manifest
from shared.contracts.mapping import Format
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic, schemas_folder
from shared.http.tokens import InvalidTokens, read_tokens
from shared.onnx.guard import check_graph
from shared.onnx.proto import InvalidGraph
from shared.registry.signatures import read_signature
from shared.sources.catalogue import default_reader, sort
from shared.sources.reading import Reader

EVENTS = (RawTrace, Trace, Request, Decision, Deferral, ModelAnnouncement)
FORMATS = sorted(Format)
SEEDS = Path(__file__).parent / "corpus"
_STAGE = Stage(name="s", features="token_ids", blob="0" * 64, bytes=1, dim=30_522, threshold=0.5)


@cache
def _reader(format: Format) -> Reader:
    return default_reader(Task(name="support"), format)


@cache
def handlers() -> Any:
    from tests.fuzzing.handlers import Handlers  # a fit and a few seconds, for one target only

    return Handlers()


def codecs(data: bytes) -> None:
    """What is decoded can be written and is the same when it is read again."""
    for kind in EVENTS:
        try:
            event = decode(data, kind)
        except InvalidEvent:
            continue
        assert decode(encode(event), kind) == event


def events(data: bytes) -> None:
    """The first byte chooses the service."""
    topics = sorted(handlers().results)
    which, rest = (data[0] if data else 0), data[1:]
    if which % (len(topics) + 1) == len(topics):
        handlers().call(rest)
    else:
        handlers().hold(topics[which % (len(topics) + 1)], rest)


def graphs(data: bytes) -> None:
    with suppress(InvalidGraph):
        check_graph(data, _STAGE, n_labels=3)


def registry(data: bytes) -> None:
    """What a reader parses of Redis, or of the operator's files."""
    with suppress(ValueError, RecursionError):  # see verified_manifest and Trust.check
        read_signature(data)
    with suppress(ValueError, RecursionError):
        decode_manifest(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    with suppress(InvalidTokens):
        read_tokens(text, "T")


def sources(data: bytes) -> None:
    """Other systems' logs; the first byte chooses the format. A call becomes a raw trace that can
    be written and read, or a refusal with a reason."""
    format = FORMATS[(data[0] if data else 0) % len(FORMATS)]
    found = sort(data[1:], "logs-0-0", format, [_reader(format)])
    for taken in found.taken:
        decode(encode(taken.trace), RawTrace)
    for lost in found.lost:
        assert str(lost.error).strip()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codecs": codecs, "events": events, "graphs": graphs, "registry": registry, "sources": sources,
}  # fmt: skip


# Whose bytes are a JSON document, after so many others.
PREFIX = {"codecs": 0, "events": 1, "registry": 0, "sources": 1}


def seeds(target: str) -> Iterator[bytes]:
    """Where a target's search begins: examples of the contracts, graphs, and former finds."""
    if target in ("codecs", "events"):
        for path in sorted((schemas_folder() / "examples").rglob("*.json")):
            data = path.read_bytes()
            if target == "codecs":
                yield data
            else:
                for which in range(len(Topic)):
                    yield bytes([which]) + data
    if target == "sources":
        for number, format in enumerate(FORMATS):
            for path in sorted((schemas_folder() / "sources" / format.value).iterdir()):
                if ".expected." not in path.name:
                    yield bytes([number]) + path.read_bytes()
    if target == "graphs":
        yield from graphs_of_ours()
    if target == "registry":
        yield graphs_manifest()
        yield b'{"key":"0123456789abcdef","sig":"AA=="}'
        yield b'[{"name":"acme","token":"0123456789abcdef","tasks":["support"],"rate":2}]'
    for path in sorted((SEEDS / target).glob("*")):
        yield path.read_bytes()


@cache
def _surrogate() -> tuple[bytes, tuple[bytes, ...]]:
    from doubles import HashEncoder
    from surrogates import make_surrogate

    made = make_surrogate(HashEncoder())
    return made.manifest_bytes, tuple(made.blobs.values())


def graphs_of_ours() -> tuple[bytes, ...]:
    """The small ones: a search gets nowhere in megabytes of weights."""
    return tuple(blob for blob in _surrogate()[1] if len(blob) < 50_000)


def graphs_manifest() -> bytes:
    manifest = _surrogate()[0]
    assert msgspec.json.decode(manifest)
    return manifest
