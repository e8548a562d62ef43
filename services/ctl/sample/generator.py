"""Customer messages of an invented online shop, with an imperfect teacher's labels.

Made of templates, without any model or network, the same for the same seed. Not separable on
purpose: some messages could mean two things and get one of the two labels at random, some are
chatter, and the teacher errs now and then. The same text always gets the same label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.ctl.sample.grammar import Grammar, Intent, load_intents, load_phrases
from services.ctl.sample.noise import capitalise, punctuate, type_it

TASK = "support"
MODEL = "sample-teacher"
START = datetime(2025, 6, 2, tzinfo=UTC)  # a Monday

AMBIGUOUS = 0.08
CHATTER = 0.05
TEACHER_NOISE = 0.02
REPEATS = 0.03
_HUMAN_LABELS = 0.10

_OTHER = "other"
_SKEW = 0.55  # of the intents' frequencies: the most frequent one is some six times the rarest
_PROMPT_TOKENS = 180
_CHARS_PER_TOKEN = 4
_INPUT_PRICE, _OUTPUT_PRICE = 0.15e-6, 0.60e-6  # US dollars a token, as in config/tasks.yaml
# Messages by hour of the day, in UTC.
_BY_HOUR = (1, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 11, 10, 10, 11, 11, 10, 10, 11, 12, 11, 8, 5, 2)


@dataclass(frozen=True, slots=True)
class _Message:
    text: str
    teacher: str
    label: str | None  # what the writer meant, where that is clear


def labels() -> tuple[str, ...]:
    """The labels of the sample, in the order of `config/tasks.yaml`."""
    return tuple(load_intents())


def generate(
    n: int, *, seed: int = 7, days: int = 5, start: datetime = START
) -> Iterator[dict[str, Any]]:
    """`n` rows in the order of `occurred_at`, spread over `days` from `start`.

    Keys: id, task, input, teacher, occurred_at (RFC 3339), model, tokens, cost, and for some
    rows `label`, a human's.
    """
    if n < 0 or days < 1:
        raise ValueError("n must not be negative, and days at least 1")
    chance = random.Random(seed)
    moments = sorted(_moment(chance, start, days) for _ in range(n))
    writer = _Writer(chance)
    for number, moment in enumerate(moments, start=1):
        yield _row(number, writer.next(), moment, chance)


class _Writer:
    """Writes one message after the other, and labels it as the teacher would."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._intents = load_intents()
        self._phrases = load_phrases()
        self._grammar = Grammar(self._phrases, chance)
        self._names = [name for name in self._intents if name != _OTHER]
        shuffled = chance.sample(self._names, len(self._names))
        frequency = {name: (rank + 1) ** -_SKEW for rank, name in enumerate(shuffled)}
        self._weights = [frequency[name] for name in self._names]
        self._written: dict[str, _Message] = {}

    def next(self) -> _Message:
        if self._written and self._chance.random() < REPEATS:
            return self._repeat()
        text, meant = self._compose()
        return self._labelled(type_it(text, self._chance), meant)

    def _repeat(self) -> _Message:
        """A message written before, as it was or nearly."""
        before = self._chance.choice(list(self._written.values()))
        if self._chance.random() < 0.6:
            return before
        ending = self._chance.choice(("", " please", "!", " ??", " thanks"))
        text = (before.text.rstrip(".!? ") + ending).strip() or before.text
        return self._written.setdefault(text, _Message(text, before.teacher, before.label))

    def _compose(self) -> tuple[str, tuple[str, ...]]:
        """A message, and the labels it could mean."""
        kind = self._chance.random()
        if kind < AMBIGUOUS / 2:
            vague = self._chance.choice(self._phrases.vague)
            return self._around(self._grammar.expand(vague.text), None), vague.labels
        if kind < AMBIGUOUS:
            first, second = self._two_intents()
            joint = self._chance.choice(self._phrases.joints)
            text = f"{self._ask(first)}{joint}{self._ask(second)}"
            return self._around(text, None), (first, second)
        name = _OTHER if kind < AMBIGUOUS + CHATTER else self._intent()
        intent = self._intents[name]
        return self._around(self._ask(name), intent), (name,)

    def _labelled(self, text: str, meant: tuple[str, ...]) -> _Message:
        known = self._written.get(text)
        if known is not None:
            return known
        teacher = self._chance.choice(meant)
        if self._chance.random() < TEACHER_NOISE:
            teacher = self._chance.choice([name for name in self._names if name not in meant])
        message = _Message(text, teacher, meant[0] if len(meant) == 1 else None)
        return self._written.setdefault(text, message)

    def _around(self, ask: str, intent: Intent | None) -> str:
        """The request with what this writer puts before and after it."""
        phrases, chance = self._phrases, self._chance
        before: list[str] = []
        after: list[str] = []
        if chance.random() < 0.25:
            before.append(self._grammar.expand(chance.choice(phrases.greetings)))
        if intent is not None and chance.random() < 0.28:
            story = self._grammar.expand(chance.choice(intent.contexts))
            (before if chance.random() < 0.7 else after).append(story)
        if chance.random() < 0.12:
            before.append(chance.choice(phrases.softeners))
        if chance.random() < 0.14:
            after.append(self._grammar.expand(chance.choice(phrases.asides)))
        if chance.random() < 0.22:
            after.append(self._grammar.expand(chance.choice(phrases.closings)))
        return self._join([*before, ask, *after])

    def _join(self, parts: list[str]) -> str:
        if self._chance.random() < 0.2:  # one long sentence
            return self._chance.choice((", ", " ", " - ", "\n")).join(parts)
        return " ".join(capitalise(punctuate(part, self._chance)) for part in parts)

    def _ask(self, name: str) -> str:
        return self._grammar.expand(self._chance.choice(self._intents[name].asks))

    def _intent(self) -> str:
        return self._chance.choices(self._names, self._weights)[0]

    def _two_intents(self) -> tuple[str, str]:
        first = self._intent()
        return first, self._chance.choice([name for name in self._names if name != first])


def _moment(chance: random.Random, start: datetime, days: int) -> datetime:
    hour = chance.choices(range(24), _BY_HOUR)[0]
    seconds = hour * 3600 + chance.randrange(3_600_000) / 1000
    return start + timedelta(days=chance.randrange(days), seconds=seconds)


def _row(number: int, message: _Message, moment: datetime, chance: random.Random) -> dict[str, Any]:
    asked = _PROMPT_TOKENS + max(1, round(len(message.text) / _CHARS_PER_TOKEN))
    said = max(1, round(len(message.teacher) / _CHARS_PER_TOKEN))
    row: dict[str, Any] = {
        "id": f"sample-{number:06d}",
        "task": TASK,
        "input": message.text,
        "teacher": message.teacher,
        "occurred_at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "model": MODEL,
        "tokens": {"input": asked, "output": said},
        "cost": round(asked * _INPUT_PRICE + said * _OUTPUT_PRICE, 9),
    }
    if message.label is not None and chance.random() < _HUMAN_LABELS:
        row["label"] = message.label
    return row
