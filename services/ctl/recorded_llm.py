"""An LLM endpoint that answers from recorded labels: a teacher for demos and tests, no network.

    python -m services.ctl.recorded_llm --answers FILE.jsonl --port 0 --port-file FILE

It speaks the parts of their APIs that the teacher uses, without streaming and on the loopback
interface only: OpenAI's (`POST /v1/chat/completions`), Azure's (the same at
`/openai/deployments/<name>/chat/completions`), Anthropic's (`POST /v1/messages`), and their lists
of models. A text that is not in the
recording gets the answer `unknown`. Faults can be asked for, to see what the teacher does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from services.ctl.recorded_dialects import AnthropicDialect, Dialect, OpenAIDialect, failure
from shared.clock import Clock, SystemClock
from shared.contracts.prompting import user_message

UNKNOWN = "unknown"
_LOOPBACK = "127.0.0.1"
_MAX_BODY_BYTES = 4_000_000
_HANG_SECONDS = 3600.0
AZURE = "/openai/deployments/NAME/chat/completions"
_DEPLOYMENT = re.compile(r"^/openai/deployments/[^/]+/chat/completions$")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """`fail_every` and `hang_every` count chat calls; 0 means never. `structured` False: a request
    for an answer by a schema is refused, as by an endpoint that knows none."""

    latency_seconds: float = 0.0
    fail_every: int = 0
    fail_status: int = 500
    hang_every: int = 0
    api_key: str | None = None
    model: str = "recorded"
    structured: bool = True


def load_answers(path: Path) -> dict[str, str]:
    """User message -> label, from rows with `input` or `premise` and `hypothesis`.

    The label is `teacher` where there is one, else `label`. Raises ValueError naming the line.
    """
    answers: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    message, label = _row(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}:{number}: not a recorded answer: {error}") from error
                answers.setdefault(message, label)
    return answers


def _row(row: Mapping[str, Any]) -> tuple[str, str]:
    text = row["input"] if "input" in row else [row["premise"], row["hypothesis"]]
    label = row.get("teacher") or row["label"]
    return user_message(text), str(label)


class RecordedLLM:
    """The server, answering until closed. Port 0 picks a free one."""

    def __init__(
        self,
        answers: Mapping[str, str],
        *,
        port: int = 0,
        behaviour: Behaviour | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.calls = 0  # chat calls so far
        self._answers = answers
        self._behaviour = behaviour or Behaviour()
        self._clock = clock or SystemClock()
        self._count = itertools.count(1)
        self._closing = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"llm": self})
        self._server = _Server((_LOOPBACK, port), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://{_LOOPBACK}:{self.port}/v1"

    def wait(self) -> None:
        self._thread.join()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def authorised(self, header: Callable[[str], str | None]) -> bool:
        key = self._behaviour.api_key
        if key is None or header("Authorization") == f"Bearer {key}":
            return True
        return key in (header("x-api-key"), header("api-key"))

    def models(self) -> dict[str, Any]:
        model = {"id": self._behaviour.model, "object": "model", "created": 0, "owned_by": "tracer"}
        return {"object": "list", "data": [model]}

    def chat(self, body: bytes, dialect: Dialect) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one answer."""
        number = self.calls = next(self._count)
        behaviour = self._behaviour
        if behaviour.hang_every and number % behaviour.hang_every == 0:
            self._closing.wait(_HANG_SECONDS)
        if behaviour.latency_seconds:
            self._closing.wait(behaviour.latency_seconds)
        if behaviour.fail_every and number % behaviour.fail_every == 0:
            return behaviour.fail_status, dialect.failure(
                "a fault that was asked for", "server_error"
            )
        try:
            request = json.loads(body)
            asked = dialect.read(request)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"not a chat completion request: {error}"
            return 400, dialect.failure(why, "invalid_request_error")
        if request.get("stream"):
            return 400, failure("streaming is not supported", "invalid_request_error", "stream")
        if asked.structured and not behaviour.structured:
            return 400, dialect.failure("unknown parameter", "invalid_request_error")
        asked = asked if asked.model else replace(asked, model=behaviour.model)
        label = self._answers.get(asked.text, UNKNOWN)
        return 200, dialect.answer(asked, label, number, int(self._clock.now().timestamp()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # teachers connect many times at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that vanished is no error of ours; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    disable_nagle_algorithm = True
    llm: ClassVar[RecordedLLM]

    def do_GET(self) -> None:
        listed = lambda: (200, self.llm.models())  # noqa: E731
        self._route({"/v1/models": listed, "/openai/models": listed})

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= _MAX_BODY_BYTES:
            self.close_connection = True  # what follows on it cannot be told apart
            self._answer(400, failure("a Content-Length is needed", "invalid_request_error"))
            return
        body = self.rfile.read(length)
        openai = lambda: self.llm.chat(body, OpenAIDialect())  # noqa: E731
        anthropic = lambda: self.llm.chat(body, AnthropicDialect())  # noqa: E731
        self._route({"/v1/chat/completions": openai, AZURE: openai, "/v1/messages": anthropic})

    def _route(self, routes: Mapping[str, Any]) -> None:
        path = self.path.split("?")[0].rstrip("/")
        path = _DEPLOYMENT.sub(AZURE, path)
        if not self.llm.authorised(self.headers.get):
            self._answer(401, failure("Incorrect API key provided", "invalid_request_error"))
        elif path not in routes:
            self._answer(404, failure(f"no such path: {path}", "invalid_request_error"))
        else:
            self._answer(*routes[path]())

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has given up waiting

    def log_message(self, format: str, *args: object) -> None:
        """One line per call would drown the demo's output."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="An LLM endpoint answering from recorded labels.")
    parser.add_argument("--answers", type=Path, required=True, help="JSONL with recorded labels")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port when listening")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--fail-every", type=int, default=0, metavar="N")
    parser.add_argument("--fail-status", type=int, default=500, choices=(429, 500))
    parser.add_argument("--hang-every", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    behaviour = Behaviour(
        latency_seconds=options.latency_ms / 1000,
        fail_every=options.fail_every,
        fail_status=options.fail_status,
        hang_every=options.hang_every,
    )
    answers = load_answers(options.answers)
    llm = RecordedLLM(answers, port=options.port, behaviour=behaviour)
    print(f"{len(answers)} recorded answers at {llm.base_url}", flush=True)
    if options.port_file:
        part = options.port_file.with_suffix(".part")
        part.write_text(str(llm.port))
        os.replace(part, options.port_file)
    try:
        llm.wait()
    except KeyboardInterrupt:
        llm.close()


if __name__ == "__main__":
    main()
