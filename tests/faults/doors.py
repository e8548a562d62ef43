"""Callers of the routers' doors: each waits for its answer, and repeats a call that got none, with
the same id, at whichever door."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.evidence import Called
from tests.faults.language import text
from tests.faults.ports import LOOPBACK
from tests.faults.system import TASK, UNTRAINED
from tests.faults.traffic import moment

_CALLERS = 4
_ATTEMPTS = 5
_PATIENCE = 7.0  # more than the door's own five seconds
_PAUSE = 0.05
_AGAIN = 0.5
_SLOW_CLIENTS = 40
_HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n"
_BODY = b'Content-Type: application/json\r\n\r\n{"'


@dataclass
class Callers:
    """`calls`: by task and id, how often each was sent and how often it was answered."""

    ports: Sequence[int]
    name: str
    day: int
    calls: dict[tuple[str, str], Called] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(_CALLERS):
            self._run(self._call, number)
        self._run(self._dawdle, _CALLERS)

    def finish(self) -> None:
        """Every call is answered, or given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_ATTEMPTS * (_PATIENCE + _AGAIN) + 5.0)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} does not end")
        self._threads.clear()

    def _run(self, work: Callable[[int], None], number: int) -> None:
        name = f"door-{self.name}-{number}"
        thread = threading.Thread(target=work, args=(number,), name=name)
        self._threads.append(thread)
        thread.start()

    def _call(self, caller: int) -> None:
        chance, sent = random.Random(f"door {self.name} {caller}"), 0
        while not self._stop.wait(_PAUSE):
            sent += 1
            task = UNTRAINED if chance.random() < 0.2 else TASK
            request = {
                "id": f"d{self.name}-{caller}-{sent}",
                "task": task,
                "input": text(chance),
                "occurred_at": moment(chance, self.day).isoformat(),
            }
            self._until_answered(request, chance)

    def _until_answered(self, request: dict[str, str], chance: random.Random) -> None:
        """An answer may be asked for a second time: a caller may not have stored it."""
        called = self.calls.setdefault((request["task"], request["id"]), Called())
        again = chance.random() < 0.02
        for _ in range(_ATTEMPTS):
            called.attempts += 1
            if self._ask(chance.choice(self.ports), request):
                called.answers += 1
                if not again:
                    return
                again = False
            else:
                time.sleep(_AGAIN)

    def _ask(self, port: int, request: dict[str, str]) -> bool:
        """Whether there was a decision of this very request."""
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PATIENCE)
        try:
            body = json.dumps(request)
            connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 200:
                return bool(json.loads(said)["request_id"] == request["id"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            pass
        finally:
            connection.close()
        return False

    def _dawdle(self, _: int) -> None:
        """Clients that connect and send a head or a body that never ends; the callers beside them
        must not notice."""
        held: list[socket.socket] = []
        turn = 0
        while not self._stop.wait(_PAUSE):
            turn += 1
            with suppress(OSError):
                made = socket.create_connection((LOOPBACK, self.ports[turn % len(self.ports)]), 1.0)
                held.append(made)
                made.sendall(_HEAD + (b"" if turn % 2 else _BODY))
            while len(held) > _SLOW_CLIENTS:
                held.pop(0).close()
        for each in held:
            each.close()
