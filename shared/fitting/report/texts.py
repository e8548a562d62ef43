"""Traces as a report shows them: redacted, short, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.contracts.report import PREVIEW_CHARS, Example, Words
from shared.core.report.boundary import Boundary
from shared.core.report.words import differing_words
from shared.core.types import Ints

Redact = Callable[[str], str]
BETWEEN = " ⏎ "  # the two texts of a pair, where they are shown as one


@dataclass(frozen=True)
class Texts:
    """inputs: of all traces, one or two texts each. redact: run before anything is cut; None for
    nothing to hide. previews: False shows no text at all."""

    inputs: Sequence[tuple[str, ...]]
    previews: bool = True
    redact: Redact | None = None

    def previews_of(self, row: int) -> tuple[str, ...]:
        if not self.previews:
            return ()
        return tuple(preview(self.shown(text)) for text in self.inputs[row])

    def shown(self, text: str) -> str:
        return self.redact(text) if self.redact else text

    def joined(self, rows: Ints) -> list[str]:
        """One text a row, for the words slices are called by."""
        return ["\n".join(map(self.shown, self.inputs[i])) for i in rows.tolist()]

    def marked(self, first: int, second: int) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
        """Two traces, the words that differ marked; empty without previews."""
        a, b = (BETWEEN.join(self.previews_of(row)) for row in (first, second))
        marked = differing_words(a, b)
        return tuple(_words(marked[0])), tuple(_words(marked[1]))


def preview(text: str) -> str:
    return text if len(text) <= PREVIEW_CHARS else text[:PREVIEW_CHARS] + "…"


def examples(
    texts: Texts, boundary: Boundary, labels: Sequence[str], rows: Ints, most: int
) -> tuple[Example, ...]:
    """Of the boundary's rows given, spread evenly over them; near-duplicates once."""
    _, first = np.unique(boundary.groups[rows], return_index=True)
    some = rows[np.sort(first)]
    some = some[np.unique(np.linspace(0, len(some) - 1, min(len(some), most)).astype(np.int64))]
    return tuple(
        Example(
            texts=texts.previews_of(int(boundary.at[i])),
            teacher=labels[boundary.y[i]],
            said=labels[boundary.said[i]],
            accept=round(float(boundary.accept[i]), 4),
        )
        for i in some.tolist()
    )


def _words(pieces: Sequence[tuple[str, bool]]) -> list[Words]:
    return [Words(text=text, differs=differs) for text, differs in pieces]
