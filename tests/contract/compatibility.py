"""What would break the readers or writers of another release, between two schemas of one event.

Old and new releases run side by side in a rolling upgrade, and topics keep what old ones wrote. So
every document valid under the old schema must be valid under the new one (new readers, old
events), and what new writers may write must not be what old readers refuse (old readers, new
events): nothing required or bounded may be taken away, nothing optional made required.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "format", "contentEncoding", "const", "default", "uniqueItems")


def breaks(old: Schema, new: Schema) -> list[str]:
    """One line for each change that is not safe, with the path of the field; empty: none."""
    return list(_compare(old, new, old, new, ""))


def _compare(old: Any, new: Any, olds: Schema, news: Schema, path: str) -> Iterator[str]:
    old, new = _resolved(old, olds), _resolved(new, news)
    where = path or "the event"
    if "anyOf" in old or "anyOf" in new:
        yield from _alternatives(old, new, olds, news, path)
        return
    if old.get("type") != new.get("type"):
        yield f"{where}: type was {_say(old.get('type'))}, is {_say(new.get('type'))}"
        return
    yield from _bounds(old, new, where)
    yield from _enum(old, new, where)
    yield from _properties(old, new, olds, news, path)
    for key, sign in (("items", "[]"), ("additionalProperties", ".*")):
        yield from _part(old.get(key, True), new.get(key, True), olds, news, path + sign)
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(before) != len(after):
        yield f"{where}: had {len(before)} fixed items, has {len(after)}"
    for i, (a, b) in enumerate(zip(before, after, strict=False)):
        yield from _compare(a, b, olds, news, f"{path}[{i}]")


def _part(old: Any, new: Any, olds: Schema, news: Schema, path: str) -> Iterator[str]:
    """A subschema that may be True or False in place of a schema."""
    if isinstance(old, bool) or isinstance(new, bool):
        if old != new:
            yield f"{path}: was {_say(old)}, is {_say(new)}"
        return
    yield from _compare(old, new, olds, news, path)


def _properties(old: Schema, new: Schema, olds: Schema, news: Schema, path: str) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    prefix = f"{path}." if path else ""
    for name in before:
        if name not in after:
            yield f"{prefix}{name}: removed"
        else:
            yield from _compare(before[name], after[name], olds, news, prefix + name)
    required, now = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(now - required):
        yield f"{prefix}{name}: required now; what is written already lacks it"
    for name in sorted((required - now) & set(after)):
        yield f"{prefix}{name}: required no more; older readers refuse events without it"


def _bounds(old: Schema, new: Schema, where: str) -> Iterator[str]:
    """Narrower refuses what is written; wider is refused by older readers."""
    for key in (*_LOWER, *_UPPER, *_EXACT):
        if old.get(key) != new.get(key):
            yield f"{where}: {key} was {_say(old.get(key))}, is {_say(new.get(key))}"


def _enum(old: Schema, new: Schema, where: str) -> Iterator[str]:
    if ("enum" in old) != ("enum" in new):
        yield f"{where}: enum was {_say(old.get('enum'))}, is {_say(new.get('enum'))}"
        return
    before, after = old.get("enum", []), new.get("enum", [])
    for value in before:
        if value not in after:
            yield f"{where}: {_say(value)} removed; it has been written"
    for value in after:
        if value not in before:
            yield f"{where}: {_say(value)} added; older readers refuse it"


def _alternatives(old: Schema, new: Schema, olds: Schema, news: Schema, path: str) -> Iterator[str]:
    """Each alternative must have one that it is compatible with, and none may be new."""
    before, after = old.get("anyOf", [old]), new.get("anyOf", [new])
    where = path or "the event"
    if old.get("default") != new.get("default"):
        yield f"{where}: default was {_say(old.get('default'))}, is {_say(new.get('default'))}"
    for which, mine, others, of_mine, of_others in (
        ("removed or changed", before, after, olds, news),
        ("added", after, before, news, olds),
    ):
        for one in mine:
            found = [list(_compare(one, other, of_mine, of_others, path)) for other in others]
            if all(found):
                nearest = min(found, key=len)
                said = _say(_resolved(one, of_mine))
                yield f"{where}: the alternative {said} {which}: {nearest[0]}"


def _resolved(node: Any, root: Schema) -> dict[str, Any]:
    if "$ref" not in node:
        return dict(node)
    target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return _resolved({**target, **{k: v for k, v in node.items() if k != "$ref"}}, root)


def _say(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
