"""Live decisions as server-sent events, a few times a second, never more than a page can show."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from services.console.live import LiveFeed
from services.console.words import word_of_reason
from shared.contracts.events import Decision

_EVERY = 0.25
_KEEP_ALIVE = 15.0


async def decisions(
    feed: LiveFeed,
    task: str,
    caller: str,
    stop: threading.Event,
    gone: Callable[[], Awaitable[bool]],
    *,
    seconds: float,
) -> AsyncIterator[bytes]:
    """Events `decisions`: a list, oldest first, and how many were `missed` in between. `trouble`:
    why none come."""
    with feed.watch(task, caller) as watcher:
        yield b"retry: 3000\n\n"
        began = said = time.monotonic()
        trouble: str | None = None
        while not stop.is_set() and time.monotonic() - began < seconds:
            taken, missed = watcher.take()
            if taken:
                yield event("decisions", {"decisions": list(map(shown, taken)), "missed": missed})
                said = time.monotonic()
            if feed.trouble != trouble:
                trouble = feed.trouble
                yield event("trouble", {"why": trouble})
            if time.monotonic() - said > _KEEP_ALIVE:
                yield b": still here\n\n"
                said = time.monotonic()
            await asyncio.sleep(_EVERY)
            if await gone():
                return


def shown(decision: Decision) -> dict[str, Any]:
    """A decision has no text; what it has is safe to show to who may see the task."""
    return {
        "request_id": decision.request_id,
        "outcome": decision.outcome.value,
        "label": decision.label,
        "reason": word_of_reason(decision.reason).title,
        "accept_score": decision.accept_score,
        "threshold": decision.threshold,
        "version": decision.version,
        "decided_at": decision.decided_at,
        "milliseconds": sum(decision.timings.values()) if decision.timings else None,
        "error": decision.error,
    }


def event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
