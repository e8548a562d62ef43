"""Documents from our JSON Schemas: mostly as described, sometimes at the edges of it.

(hypothesis-jsonschema 0.23 does not run on the hypothesis of the lock file.)
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
MOMENTS = st.sampled_from(
    ["2026-01-05T09:30:00Z", "2026-12-31T23:59:60Z", "0001-01-01T00:00:00+14:00",
     "9999-12-31T23:59:59-12:00", "2026-02-30T00:00:00Z", "yesterday"]
)  # fmt: skip
NAMES = st.sampled_from(["support", "intents", "a", "unheard-of", "0" * 63])


def documents(schema: dict[str, Any], root: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Raises KeyError for a keyword it does not know how to begin with."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return documents(target, root)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of(*(documents(each, root) for each in schema[several]))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type")
    if kinds is None:
        return _object(schema, root) if "properties" in schema else ANYTHING
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of(*(_of_kind(kind, schema, root) for kind in kinds))


def _of_kind(kind: str, schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum", 1 << 63))
        case "number":
            return st.floats(
                schema.get("minimum", schema.get("exclusiveMinimum")),
                schema.get("maximum", schema.get("exclusiveMaximum")),
            )
        case "string":
            return _text(schema)
        case "array":
            return st.lists(
                documents(schema.get("items", {}), root),
                min_size=schema.get("minItems", 0),
                max_size=min(schema.get("maxItems", 4), 4),
            )
        case "object":
            return _object(schema, root)
    raise KeyError(kind)


def _text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return MOMENTS
    most = schema.get("maxLength", 300)
    text = st.text(min_size=schema.get("minLength", 0), max_size=min(most, 40))
    return text | NAMES | st.just("💩" * min(most, 32_768))


def _object(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    fields = {name: documents(each, root) for name, each in schema.get("properties", {}).items()}
    required = {name: fields.pop(name, ANYTHING) for name in schema.get("required", ())}
    known = st.fixed_dictionaries(required, optional=fields)
    more = st.dictionaries(st.text(max_size=9), ANYTHING, max_size=2)
    return st.builds(lambda a, b: {**b, **a}, known, more)
