"""Dead letters as a page shows them: the newest, followed in memory; and putting them back."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.console.actions import Refused
from shared.bus.base import Message, Publisher
from shared.bus.redriving import StoredLetter, letters_of, plan, put_back
from shared.clock import Clock
from shared.http.tokens import Caller

log = logging.getLogger(__name__)

MAX_LETTERS = 5_000
MAX_BYTES = 64 * 1024 * 1024
SHOWN = 200
# Of a letter whose task was not known: its message lists the tasks that were, those of others too.
_TASK_FIELD = "task"
_TASK_UNKNOWN = "the task was not known"


@dataclass(frozen=True, slots=True)
class LetterView:
    """One dead letter. Its text is not shown here: `tracerctl dead-letters show` does."""

    id: str
    at: datetime
    task: str | None
    topic: str
    service: str
    stage: str
    field: str
    error: str
    message: str
    redrives: int
    redriven_by: str | None
    redriven_at: str | None


@dataclass(frozen=True, slots=True)
class LettersView:
    """The newest first; `n` there are in all, `waiting` were not put back."""

    letters: tuple[LetterView, ...]
    n: int
    waiting: int
    troubles: tuple[str, ...]


@dataclass
class DeadLetters:
    """The topic's newest records, bounded. `following.follow` fills it."""

    trouble: str | None = "the dead letters are still being read"
    _messages: deque[Message] = field(default_factory=deque)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        with self._lock:
            self._messages.clear()
            self._bytes = 0

    def take(self, message: Message) -> None:
        with self._lock:
            self._messages.append(message)
            # A letter may have as many bytes in its original's headers or key as in its value.
            self._bytes += message.size
            while len(self._messages) > MAX_LETTERS or self._bytes > MAX_BYTES:
                self._bytes -= self._messages.popleft().size

    def of(self, caller: Caller, tasks: Container[str]) -> list[StoredLetter]:
        """Oldest first; all to who may use all tasks, otherwise those of `tasks` that the caller
        may use."""
        with self._lock:
            messages = list(self._messages)
        return visible(letters_of(messages)[0], caller, tasks)


class Post(Protocol):
    """How letters are put back: opened for one re-drive, and closed."""

    def publisher(self) -> Publisher:
        """Opened first: it ends what another re-drive had begun. Raises Retryable or Fatal."""
        ...

    def letters(self, places: Collection[str]) -> list[StoredLetter]:
        """Those of `places` that there are now, read from the topic: which may hold far more than
        this process has room for. Raises Retryable or Fatal."""
        ...

    @property
    def transactions(self) -> bool:
        """Whether the publisher writes all it is given, or nothing."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """Those messages may be put back to."""
        ...


def visible(
    letters: Sequence[StoredLetter], caller: Caller, tasks: Container[str]
) -> list[StoredLetter]:
    """`tasks`: those there are. One that is not is nobody's, whatever a token names."""
    if caller.tasks is None:
        return list(letters)
    return [
        stored
        for stored in letters
        if stored.task is not None and stored.task in tasks and caller.may_use(stored.task)
    ]


def letters_view(dead: DeadLetters, caller: Caller, tasks: Container[str]) -> LettersView:
    found = dead.of(caller, tasks)
    return LettersView(
        letters=tuple(_view(stored, caller) for stored in found[: -SHOWN - 1 : -1]),
        n=len(found),
        waiting=sum(stored.redriven_by is None for stored in found),
        troubles=(dead.trouble,) if dead.trouble else (),
    )


def redrive(
    post: Post, ids: Sequence[str], caller: Caller, tasks: Container[str], clock: Clock
) -> tuple[int, tuple[str, ...]]:
    """How many were put back, and why others were not. Raises Refused, Retryable or Fatal."""
    wanted = set(ids)
    if not wanted:
        raise Refused("choose the letters to put back")
    publisher = post.publisher()
    try:
        chosen = visible(post.letters(wanted), caller, tasks)
        made = plan(chosen, topics=post.topics)
        done = put_back(
            made.ready, publisher, transactions=post.transactions, by=caller.name, at=clock.now()
        )
    finally:
        publisher.close()
    log.info(
        "dead letters put back by hand",
        extra={"actor": caller.name, "letters": [stored.place for stored in made.ready]},
    )
    reasons = [f"{stored.place}: {why}" for stored, why in made.refused]
    missing = sorted(wanted - {stored.place for stored in chosen})
    return done, (*reasons, *(f"{place}: there is no such letter" for place in missing))


def _view(stored: StoredLetter, caller: Caller) -> LetterView:
    letter = stored.letter
    names_others = caller.tasks is not None and letter.field == _TASK_FIELD
    return LetterView(
        id=stored.place,
        at=letter.at,
        task=stored.task,
        topic=letter.topic,
        service=letter.service,
        stage=letter.stage,
        field=letter.field,
        error=letter.error,
        message=_TASK_UNKNOWN if names_others else letter.message,
        redrives=stored.redrives,
        redriven_by=stored.redriven_by,
        redriven_at=stored.redriven_at,
    )
