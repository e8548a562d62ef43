"""The door's OpenAPI 3.1 document, made of the JSON Schemas of the events."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from services.router.calls import MAX_REQUESTS

_JSON = "application/json"


def openapi(folder: Path) -> bytes:
    """The document as JSON. `folder`: the schemas folder."""
    schemas: dict[str, Any] = {}
    for name in ("request", "decision"):
        text = (folder / "events" / f"{name}.v1.schema.json").read_text(encoding="utf-8")
        schemas |= _components(json.loads(text))
    request = schemas["Request"]
    request["required"] = [field for field in request["required"] if field != "id"]
    request["properties"]["id"]["description"] = "Made when it is left out; the decision names it."
    schemas["Decision"]["properties"]["label"]["description"] = (
        "The answer; absent when the outcome is `deferred`: the teacher's decision comes on the "
        "topic `decisions`, under the same request id."
    )
    schemas |= _SCHEMAS
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "TRACER router",
            "version": "1",
            "description": "Decisions for callers who cannot wait for a topic.",
        },
        "paths": {"/v1/classify": {"post": _operation()}},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }
    return json.dumps(document, sort_keys=True).encode()


def _components(schema: dict[str, Any]) -> dict[str, Any]:
    """An event's schema and its definitions, referring to each other as components do."""
    for key in ("$id", "$comment"):
        schema.pop(key, None)
    definitions = schema.pop("$defs", {})
    found = {schema["title"]: schema, **definitions}
    moved: dict[str, Any] = json.loads(
        json.dumps(found).replace('"#/$defs/', '"#/components/schemas/')
    )
    return moved


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


_SCHEMAS: dict[str, Any] = {
    "Batch": {
        "type": "object",
        "required": ["requests"],
        "properties": {
            "requests": {
                "type": "array", "items": _ref("Request"), "minItems": 1, "maxItems": MAX_REQUESTS,
            },
        },
    },
    "Results": {
        "type": "object",
        "required": ["results"],
        "properties": {
            "results": {
                "description": "One for each request, in their order.",
                "type": "array",
                "items": {"anyOf": [_ref("Decision"), _ref("Refused")]},
            }
        },
    },
    "Refused": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "fix"],
                "properties": {
                    "field": {"description": "Path of the field at fault.", "type": "string"},
                    "message": {"description": "What is wrong.", "type": "string"},
                    "fix": {"description": "What to do about it.", "type": "string"},
                },
            },
            "request_ids": {
                "description": "The requests that were not decided: to be sent again under these.",
                "type": "array",
                "items": _ref("id"),
            },
        },
    },
}  # fmt: skip

_PROBLEMS = {
    "401": "No token, or not the right one.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The call, or its only request, cannot be used.",
    "503": "Too much is waiting, or the broker is away: send it again, with the same ids.",
}


def _operation() -> dict[str, Any]:
    problems: dict[str, Any] = {
        status: {"description": why, "content": _content(_ref("Refused"))}
        for status, why in _PROBLEMS.items()
    }
    problems["503"]["headers"] = {
        "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}
    }
    done = {"anyOf": [_ref("Decision"), _ref("Results")]}
    return copy.deepcopy(
        {
            "summary": "Decide one request, or several",
            "operationId": "classify",
            "requestBody": {
                "required": True,
                "content": _content({"anyOf": [_ref("Batch"), _ref("Request")]}),
            },
            "responses": {
                "200": {
                    "description": "A decision, or for a batch one for each request; "
                    "each is on the topic by now.",
                    "content": _content(done),
                },
                **problems,
            },
        }
    )
