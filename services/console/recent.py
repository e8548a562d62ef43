"""The newest requests that somebody watched being decided, so that one can be asked about.

Texts are in no decision. While a page watches, the live reader sees requests go by as well; of
tasks that show texts at all the newest are kept, in memory only, as they came: whoever shows one
redacts it first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from shared.contracts.events import Decision, Request

MAX_REQUESTS = 5_000
MAX_CHARS = 8_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """texts: None where they are not kept, or not seen."""

    texts: tuple[str, ...] | None = None
    decision: Decision | None = None

    @property
    def chars(self) -> int:
        return sum(map(len, self.texts or ()))


class RecentRequests:
    """Safe to share between threads."""

    def __init__(
        self, with_texts: Iterable[str], *, most: int = MAX_REQUESTS, most_chars: int = MAX_CHARS
    ) -> None:
        """with_texts: the tasks whose texts may be shown."""
        self._with_texts = frozenset(with_texts)
        self._most, self._most_chars = most, most_chars
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()
        self._chars = 0
        self._lock = threading.Lock()

    def request(self, request: Request) -> None:
        if request.task in self._with_texts:
            given = request.input
            texts = (given,) if isinstance(given, str) else tuple(given)
            self._change(request.task, request.id, texts=texts)

    def decision(self, decision: Decision) -> None:
        # Without its metadata, which may be large, and which nobody asks for.
        kept = msgspec.structs.replace(decision, metadata=None)
        self._change(decision.task, decision.request_id, decision=kept)

    def of(self, task: str, request_id: str) -> Seen:
        """Empty for one that was not watched, or long ago."""
        with self._lock:
            return self._seen.get((task, request_id), Seen())

    def _change(self, task: str, request_id: str, **changes: object) -> None:
        with self._lock:
            before = self._seen.pop((task, request_id), Seen())
            after = replace(before, **changes)  # type: ignore[arg-type]
            self._seen[task, request_id] = after
            self._chars += after.chars - before.chars
            while len(self._seen) > self._most or self._chars > self._most_chars:
                _, oldest = self._seen.popitem(last=False)
                self._chars -= oldest.chars
