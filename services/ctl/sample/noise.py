"""How people type: slips, chat spelling, and what they do to capitals and full stops."""

from __future__ import annotations

import random
import re

_NEIGHBOURS = {
    "a": "qs", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "w", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
_CHAT = (
    (r"\bplease\b", "pls"), (r"\byou\b", "u"), (r"\byour\b", "ur"), (r"\bare\b", "r"),
    (r"n't\b", "nt"), (r"\bI'm\b", "im"), (r"\bit's\b", "its"), (r"\bbecause\b", "cuz"),
    (r"\bthanks\b", "thx"), (r"\band\b", "&"), (r"\bwant to\b", "wanna"), (r"\bto\b", "2"),
)  # fmt: skip
_QUESTION = re.compile(
    r"\b(where|when|how|what|which|why|who|can|could|is|are|has|do|does|did|will|would|am)\b",
    re.IGNORECASE,
)


def punctuate(sentence: str, chance: random.Random) -> str:
    """The sentence with the end that this writer gives it, if any."""
    if not sentence or sentence[-1] in "?!.":
        return sentence
    asks = _QUESTION.match(sentence) is not None
    return (
        sentence
        + chance.choices(
            ("?", ".", "", "!", "...", "??"),
            (9, 1, 3, 0, 0.3, 0.7) if asks else (0.5, 8, 4, 1, 0.7, 0),
        )[0]
    )


def type_it(text: str, chance: random.Random) -> str:
    """The text as somebody in a hurry might have typed it."""
    if chance.random() < 0.08:
        for pattern, short in _CHAT:
            if chance.random() < 0.5:
                text = re.sub(pattern, short, text)
    if chance.random() < 0.20:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            text = _slip(text, chance)
    style = chance.random()
    if style < 0.30:
        return text.lower()
    if style < 0.33:
        return text.upper()
    return text


def capitalise(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _slip(text: str, chance: random.Random) -> str:
    """One letter swapped, dropped, doubled or missed; codes and numbers are copied, not typed."""
    places = [
        at
        for at in range(1, len(text) - 1)
        if text[at - 1 : at + 2].isalpha() and text[at].islower()
    ]
    if not places:
        return text
    at = chance.choice(places)
    letter = text[at]
    match chance.randrange(4):
        case 0:
            return text[:at] + text[at + 1] + letter + text[at + 2 :]
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return text[:at] + letter + text[at:]
        case _:
            return text[:at] + chance.choice(_NEIGHBOURS.get(letter, letter)) + text[at + 1 :]
