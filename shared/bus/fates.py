"""From messages to records, one by one: handled, or to the dead letters with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal, InvalidMessage

MOST_CONSECUTIVE = 1_000


class DeadLetterLimit:
    """Stops the process when nothing but dead letters comes out of it.

    A long unbroken run of them means that the reader is wrong (a schema changed, the wrong
    topic), not the messages; going on would only move the topic into the dead letters.
    """

    def __init__(self, most_consecutive: int = MOST_CONSECUTIVE) -> None:
        self._most = most_consecutive
        self._run = 0
        self._counted: dict[TopicPartition, tuple[int, int]] = {}  # offset and part

    def handled(self) -> None:
        self._run = 0

    def rejected(self, message: Message, why: InvalidMessage, part: int = 0) -> bool:
        """False for one that was counted before, handed out again after a retry. Raises Fatal,
        naming `why`, when this is one too many in a row.

        `part`: which of a message that holds several things, from 0; a message with several bad
        ones lengthens the run by one.
        """
        at = TopicPartition(message.topic, message.partition)
        last, last_part = self._counted.get(at, (-1, 0))
        if (message.offset, part) <= (last, last_part):
            return False
        self._counted[at] = message.offset, part
        if message.offset == last:
            return True
        self._run += 1
        if self._run > self._most:
            raise Fatal(
                f"more than {self._most} dead letters in a row; the last, offset {message.offset} "
                f"of {message.topic}[{message.partition}]: {why}"
            ) from why
        return True


def each(
    messages: Iterable[Message],
    handle_one: Callable[[Message], Sequence[Record]],
    *,
    dead_letter: Callable[[Message, InvalidMessage], Record],
    limit: DeadLetterLimit,
) -> list[Record]:
    """The records of all messages, in order; `dead_letter(message, why)` for an invalid one.

    Keep one `limit` per process, so that a run is counted over batches. Raises Fatal when it is
    exceeded, and whatever else `handle_one` raises.
    """
    records: list[Record] = []
    for message in messages:
        try:
            records += handle_one(message)
        except InvalidMessage as why:
            limit.rejected(message, why)
            records.append(dead_letter(message, why))
        else:
            limit.handled()
    return records
