"""The counters of `tallies`, in Redis: a hash a day, added to by one script, so each is atomic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
import redis

from services.console.tallies import Tally
from shared.bus.base import TopicPartition
from shared.registry.checks import checked_task
from shared.registry.refusals import reaching

MAX_DAYS = 400

_Counted = dict[str, dict[str, str]]  # Redis keeps numbers as text

# KEYS: the days, the marks. ARGV: prefix of a day's key, days to keep, the mark's field; then
# offset, day, its number, field and count of each tally, in the order of offsets.
_ADD = """
local DAYS, MARKS = KEYS[1], KEYS[2]
local PREFIX, KEEP, SOURCE = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local mark = tonumber(redis.call('HGET', MARKS, SOURCE) or -1)
local last = mark
for i = 4, #ARGV, 5 do
  local offset = tonumber(ARGV[i])
  if offset > mark then
    redis.call('HINCRBY', PREFIX .. ARGV[i + 1], ARGV[i + 3], ARGV[i + 4])
    redis.call('ZADD', DAYS, ARGV[i + 2], ARGV[i + 1])
    last = offset
  end
end
if last > mark then redis.call('HSET', MARKS, SOURCE, last) end
local surplus = redis.call('ZCARD', DAYS) - KEEP
if surplus > 0 then
  for _, day in ipairs(redis.call('ZRANGE', DAYS, 0, surplus - 1)) do
    redis.call('DEL', PREFIX .. day)
  end
  redis.call('ZREMRANGEBYRANK', DAYS, 0, surplus - 1)
end
"""
# KEYS: the days. ARGV: prefix of a day's key, how many of the newest days. A JSON object of objects
# is a reply of one string, which reads many times faster than one of thousands of parts.
_DAYS = """
local found = {}
for _, day in ipairs(redis.call('ZRANGE', KEYS[1], -ARGV[2], -1)) do
  local fields, counts = redis.call('HGETALL', ARGV[1] .. day), {}
  for i = 1, #fields, 2 do counts[fields[i]] = fields[i + 1] end
  found[day] = counts
end
return cjson.encode(found)
"""
# Lua's stack takes some 8,000 values.
_PER_CALL = 1_000


class RedisTallies:
    """Implements `TallyStore`; safe to share between threads. The caller's client."""

    def __init__(self, client: redis.Redis, *, max_days: int = MAX_DAYS) -> None:
        self._client = client
        self._max_days = max_days
        self._add = client.register_script(_ADD)

    def add(self, task: str, source: TopicPartition, tallies: Sequence[Tally]) -> None:
        prefix = _prefix(task)
        for some in _whole_messages(sorted(tallies), _PER_CALL):
            arguments: list[Any] = [
                f"{prefix}:", self._max_days, f"{source.topic}/{source.partition}",
            ]  # fmt: skip
            for tally in some:
                day = tally.day
                arguments += [tally.offset, day.isoformat(), day.toordinal(), tally.field, tally.n]
            with reaching(self._client):
                self._add(keys=[f"{prefix}s", f"{prefix}:marks"], args=arguments)

    def days(self, tasks: Sequence[str], limit: int) -> dict[str, dict[date, dict[str, int]]]:
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            for task in tasks:
                pipeline.eval(_DAYS, 1, f"{_prefix(task)}s", f"{_prefix(task)}:", limit)
            found = pipeline.execute()
        return {
            task: {
                date.fromisoformat(day): {field: int(n) for field, n in counts.items()}
                for day, counts in sorted(msgspec.json.decode(answer, type=_Counted).items())
            }
            for task, answer in zip(tasks, found, strict=True)
        }

    def close(self) -> None:
        self._client.close()


def _prefix(task: str) -> str:
    """As the registry's keys: the braces keep a task's keys on one slot of a cluster."""
    return f"tracer:{{{checked_task(task)}}}:day"


def _whole_messages(tallies: Sequence[Tally], size: int) -> list[Sequence[Tally]]:
    """Parts of about `size`, none of which ends within a message: its mark would lose the rest."""
    parts: list[Sequence[Tally]] = []
    start = 0
    while start < len(tallies):
        end = min(start + size, len(tallies))
        while end < len(tallies) and tallies[end].offset == tallies[end - 1].offset:
            end += 1
        parts.append(tallies[start:end])
        start = end
    return parts
