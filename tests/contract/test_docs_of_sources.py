"""What the pages on sources and teachers tell users to paste is taken."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import confluent_kafka
import msgspec
import pytest

from services.teacher.costs import load_prices
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format, SourceMapping
from shared.contracts.tasks import Task, load_tasks
from shared.contracts.topics import schemas_folder
from shared.sources.catalogue import default_reader, readers_by_topic, readers_of, sort

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("sources", "teachers")
    for number, block in enumerate(
        re.findall(r"```yaml\n(tasks:.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_tasks_file_of_the_docs_loads_and_its_paths_compile(block: str, tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(block)
    tasks = load_tasks(file)
    readers_by_topic(tasks.values())
    readers_of(tasks.values(), *Format)


def test_the_price_table_of_the_docs_loads(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(gpt.*?)```", (DOCS / "teachers.md").read_text(), re.DOTALL)
    (tmp_path / "prices.yaml").write_text(block)
    assert load_prices(tmp_path / "prices.yaml", "default")


def test_every_format_and_field_has_its_words() -> None:
    text = (DOCS / "sources.md").read_text()
    fields = [field.name for field in msgspec.structs.fields(SourceMapping)]
    for name in (*Format, *fields):
        assert name in text, name


# --- the programs on the page, run


def program(importing: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "sources.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if f"from {importing} import" in block]
    return found


def traces_of(value: bytes, format: Format) -> list[RawTrace]:
    found = sort(value, "here", format, [default_reader(Task(name="support"), format)])
    assert not found.lost
    return [each.trace for each in found.taken]


def test_litellm_s_callback_writes_what_ingest_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM itself is not installed here: what it calls is."""
    sent: list[tuple[str, bytes]] = []

    class Producer:
        def __init__(self, config: dict[str, str]) -> None:
            assert config["bootstrap.servers"]

        def produce(self, topic: str, value: bytes) -> None:
            sent.append((topic, value))

        def poll(self, timeout: float) -> int:
            return 0

    theirs = ModuleType("litellm.integrations.custom_logger")
    theirs.CustomLogger = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    monkeypatch.setattr(confluent_kafka, "Producer", Producer)
    known: dict[str, Any] = {}
    exec(program("litellm.integrations.custom_logger"), known)
    payload = json.loads((schemas_folder() / "sources/litellm/one.json").read_bytes())
    call = {"standard_logging_object": payload}
    asyncio.run(known["to_kafka"].async_log_success_event(call, None, None, None))
    [(topic, value)] = sent
    assert topic == "litellm"
    assert [trace.teacher for trace in traces_of(value, Format.LITELLM)] == ["delivery_status"]


@pytest.fixture
def stored_completions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenAI's API of stored completions: lists them without messages, and those by themselves."""
    page = json.loads((schemas_folder() / "sources/openai/stored-page.json").read_bytes())
    asked = {each["id"]: each.pop("messages", []) for each in page["data"]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].split("/")
            if parts[-1] == "messages":
                listed = [{"id": f"m-{i}", **each} for i, each in enumerate(asked[parts[-2]])]
                found = {"object": "list", "data": listed, "has_more": False}
            else:
                assert parts == ["", "v1", "chat", "completions"]
                found = page
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        yield
        server.shutdown()


@pytest.mark.usefixtures("stored_completions")
def test_stored_completions_are_exported_with_what_was_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exec(program("openai"), {})
    *good, unasked = capsys.readouterr().out.splitlines()
    traces = [trace for row in good for trace in traces_of(row.encode(), Format.OPENAI)]
    assert [(trace.input, trace.teacher) for trace in traces] == [
        ("I want my money back", "refund_request"),
        ("Where is my parcel?", "delivery_status"),
    ]
    assert json.loads(unasked)["messages"] == []
