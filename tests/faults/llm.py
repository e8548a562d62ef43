"""The teacher's endpoint, which answers by counting words, or fails in the way it is told to."""

from __future__ import annotations

import itertools
import threading
from typing import Any, Literal

from services.ctl.recorded_dialects import Dialect, failure
from services.ctl.recorded_llm import RecordedLLM
from shared.clock import SystemClock
from tests.faults.language import label_of

Mood = Literal["well", "hang", "busy", "broken", "garbage", "slow"]
MOODS: tuple[Mood, ...] = ("hang", "busy", "broken", "garbage", "slow")
SLOW_SECONDS = 1.0


class _Counted(dict[str, str]):
    """A recording of every text there is."""

    def get(self, asked: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return label_of(asked) or default


class MoodyLLM(RecordedLLM):
    """`mood`: well; hang (no answer until it is over); busy (429); broken (500); garbage (by turns
    no completion, one without a choice, and no label of any task); slow (a second each)."""

    def __init__(self) -> None:
        self.mood: Mood = "well"
        self._turns = itertools.count()
        self._calm = threading.Event()
        super().__init__(_Counted(), clock=SystemClock())

    def be(self, mood: Mood) -> None:
        self.mood = mood
        if mood == "hang":
            self._calm.clear()
        else:
            self._calm.set()

    def close(self) -> None:
        self._calm.set()
        super().close()

    def chat(self, body: bytes, dialect: Dialect) -> tuple[int, dict[str, Any]]:
        match self.mood:
            case "hang":
                self._calm.wait()
            case "busy":
                return 429, failure("too many requests", "rate_limit_error")
            case "broken":
                return 500, failure("the server had an error", "server_error")
            case "garbage":
                return self._garbage(body, dialect)
            case "slow":
                self._closing.wait(SLOW_SECONDS)
        return super().chat(body, dialect)

    def _garbage(self, body: bytes, dialect: Dialect) -> tuple[int, dict[str, Any]]:
        turn = next(self._turns) % 3
        if turn == 0:
            return 200, {"page": "<html>Bad gateway</html>"}
        status, answer = super().chat(body, dialect)
        if turn == 1:
            return status, answer | {"choices": []}
        answer["choices"][0]["message"]["content"] = "\u202e\x00 as an AI I cannot"
        return status, answer
