"""What an explanation says; plain data, so that who shows it needs nothing that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class StageSaid:
    """What one stage makes of the text, whether or not it is asked. why: in words."""

    stage: str
    label: str
    runner_up: str
    accept: float
    threshold: float
    novelty: float
    novelty_cut: float
    answers: bool
    why: str


@dataclass(frozen=True)
class Word:
    """contribution: to the score of the stage's label over that of its runner-up, in units of the
    linear model's scores. All of them and the difference of the two biases add up to it.
    placeholder: what a redactor put where personal data was."""

    text: str
    contribution: float
    placeholder: bool = False


@dataclass(frozen=True)
class Neighbour:
    """similarity: cosine of the embeddings. said: the version's answer now, at the score `accept`.
    why: it is handled or deferred, in words; a deferred one may well score above the threshold."""

    texts: tuple[str, ...]
    teacher: str
    said: str
    accept: float
    similarity: float
    why: str


@dataclass(frozen=True)
class Explanation:
    """handled: None where only a part of the stages could be asked and none of them answers. label:
    the answer, or the last asked stage's guess where nothing answers. words: of the lexical stage,
    for its label and against the runner-up; None without one. would_be_handled: what would have
    made it so, sentences; empty where it is. notes: what could not be told, and why. overruled: why
    routers defer at present what the version would handle; None where they do not."""

    task: str
    version: str
    texts: tuple[str, ...]
    handled: bool | None
    answered_by: str | None
    label: str
    summary: str
    stages: list[StageSaid]
    words: list[Word] | None
    words_for: str | None
    words_against: str | None
    nearest_handled: list[Neighbour]
    nearest_deferred: list[Neighbour]
    would_be_handled: list[str]
    notes: list[str] = field(default_factory=list)
    overruled: str | None = None

    def shown(self, show: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Explanation:
        """The same with texts of stored traces as `show` has them."""
        return replace(
            self,
            nearest_handled=[replace(n, texts=show(n.texts)) for n in self.nearest_handled],
            nearest_deferred=[replace(n, texts=show(n.texts)) for n in self.nearest_deferred],
        )
