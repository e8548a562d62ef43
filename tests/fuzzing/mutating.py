"""Changes to JSON documents that leave most of one as it was.

What decodes JSON is C, which coverage does not see into: random bytes would hardly ever get beyond
it, and libFuzzer drops good documents from its corpus, as they show it nothing new.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 1 << 31, 1 << 63, -(1 << 64), 10**400,
    0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "", " ", "\0", "a\0b",
    "💩", "\ud83d", "\u202eمرحبا", "\r\n", "NaN",
    "a" * 257, "a" * 33_000, "support", "intents", "unheard-of", "../..", "deferred", "audited",
    "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-12:00",
    "2026-02-30T00:00:00Z", "2026-01-05T24:00:00Z",
    [], {}, [[]], {"": None}, ["a", "b"], [{}] * 300,
)  # fmt: skip
_MOST_CHANGES = 3

Mutate = Callable[[bytes, int], bytes]


def mutated(
    data: bytes, limit: int, seed: int,
    *, bytewise: Mutate, known: Sequence[bytes], prefix: int = 0,
) -> bytes:  # fmt: skip
    """Another document of at most `limit` bytes, made of `data` or of one of `known`; or, now and
    then and for what is no JSON, what `bytewise` makes of the bytes. The first `prefix` bytes are
    no part of the document.
    """
    chance = random.Random(seed)
    if chance.random() < 0.5:
        data = chance.choice(known)[:limit]
    head, body = data[:prefix], data[prefix:]
    if chance.random() < 0.3:
        return bytewise(data, limit)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return bytewise(data, limit)
    for _ in range(chance.randint(1, _MOST_CHANGES)):
        document = _changed(document, chance)
    if prefix and chance.random() < 0.1:
        head = bytes(chance.randrange(256) for _ in range(prefix))
    made = head + json.dumps(document, ensure_ascii=chance.random() < 0.5).encode(
        errors="surrogatepass"
    )
    return made if len(made) <= limit else bytewise(data, limit)


def _changed(document: Any, chance: random.Random) -> Any:
    """One value replaced, taken away, copied to another name, or wrapped; at any depth."""
    if isinstance(document, (dict, list)) and document and chance.random() < 0.8:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = chance.choice(keys)
        inner = document[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.6:
            document[key] = _changed(inner, chance)
            return document
        match chance.randrange(5):
            case 0:
                del document[key]
            case 1 if isinstance(document, dict):
                document[chance.choice(keys)] = copy.deepcopy(inner)
            case 2:
                document[key] = _edited(inner, chance)
            case 3 if isinstance(document, dict):
                document[chance.choice(("later", "v", "task", "input", "metadata"))] = (
                    copy.deepcopy(inner)
                )
            case _:
                document[key] = _odd(chance)
        return document
    return chance.choice((_odd(chance), [document], {"request": document}))


def _odd(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(ODD))


def _edited(value: Any, chance: random.Random) -> Any:
    """Something of the same type, near it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + chance.choice((-1, 1, 1 << chance.randrange(64)))
    if isinstance(value, float):
        return value * chance.choice((-1.0, 0.0, 1e6, 1e-300, 1.0 + 1e-12))
    if isinstance(value, str):
        at = chance.randint(0, len(value))
        return (
            value[:at] + chance.choice(("", "\0", "💩", "\u0301", "Z", "9" * 9)) + value[at + 1 :]
        )
    return value
