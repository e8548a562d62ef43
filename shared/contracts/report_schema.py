"""The JSON Schema of reports, made from the structs: `python -m shared.contracts.report_schema`.

With `--check` nothing is written; the exit code says whether the committed schema is up to date.
"""

from __future__ import annotations

import json
import sys
from inspect import cleandoc
from typing import Any

import msgspec

from shared.contracts.report import Report
from shared.contracts.topics import schemas_folder

SCHEMA = "reports/report.v1.schema.json"


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12, as plain data."""
    (root,), definitions = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    name = root["$ref"].rsplit("/", 1)[1]
    whole = definitions.pop(name)
    head = {
        "$comment": "JSON Schema 2020-12, generated; see ../README.md.",
        "$id": "urn:tracer:report:v1",
    }
    document: dict[str, Any] = _plain(head | whole | {"$defs": definitions})
    return document


def render() -> str:
    """Always the same text for the same structs."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    path = schemas_folder() / SCHEMA
    text = render()
    if "--check" in arguments:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return 0
        print(f"{path} is out of date: run python -m shared.contracts.report_schema")
        return 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return 0


def _plain(node: Any) -> Any:
    """Patterns as JSON Schema spells them, `$` where Python has `\\Z`; words without indents."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items()}
    if isinstance(plain.get("pattern"), str):
        plain["pattern"] = plain["pattern"].replace(r"\Z", "$")
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(cleandoc(plain["description"]).split())
    return plain


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
