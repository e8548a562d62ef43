"""The texts of the fault suite: made-up words with a label that anybody can count."""

from __future__ import annotations

import random
from collections.abc import Mapping

LABELS = ("account", "billing", "delivery")
_SYLLABLES = {
    "account": ("log", "pass", "user", "mail", "lock"),
    "billing": ("pay", "card", "fee", "cost", "bill"),
    "delivery": ("ship", "van", "post", "box", "road"),
}
_ENDINGS = ("ing", "er", "ment", "age", "able", "ed")
WORDS: Mapping[str, tuple[str, ...]] = {
    label: tuple(start + end for start in starts for end in _ENDINGS)
    for label, starts in _SYLLABLES.items()
}
_LABEL_OF = {word: label for label, words in WORDS.items() for word in words}
_CLEAR, _MUDDLED = 6, 2


def text(chance: random.Random, *, muddled: float = 0.15) -> str:
    """Six words of one label; a share `muddled` has two of another label among them."""
    label = chance.choice(LABELS)
    words = chance.choices(WORDS[label], k=_CLEAR)
    if chance.random() < muddled:
        other = chance.choice([each for each in LABELS if each != label])
        words += chance.choices(WORDS[other], k=_MUDDLED)
        chance.shuffle(words)
    return " ".join(words)


def label_of(sentence: str) -> str | None:
    """The label most of its words have; None for a text that is not of this language."""
    votes = [_LABEL_OF[word] for word in sentence.split() if word in _LABEL_OF]
    return max(LABELS, key=votes.count) if votes else None
