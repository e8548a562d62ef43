"""Which words of two texts differ."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Piece = tuple[str, bool]
"""A piece of a text, and whether the other text has it not."""

_PIECES = re.compile(r"\w+|\s+|[^\w\s]+")


def differing_words(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts cut into pieces; joined, the pieces are the texts again. Case and spacing make no
    difference."""
    a, b = _PIECES.findall(first), _PIECES.findall(second)
    matcher = SequenceMatcher(None, [_same(p) for p in a], [_same(p) for p in b], autojunk=False)
    marked: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        differs = kind != "equal"
        for pieces, found in ((a[a_from:a_to], marked[0]), (b[b_from:b_to], marked[1])):
            if pieces:
                found.append(("".join(pieces), differs and any(p.strip() for p in pieces)))
    return marked


def _same(piece: str) -> str:
    return piece.casefold() if piece.strip() else " "
