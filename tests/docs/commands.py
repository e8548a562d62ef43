"""The commands that a document tells its reader to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Command:
    """One command line of a document, its continuations joined and its comment cut off."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.text[:60]}"


def commands(document: str) -> Iterator[Command]:
    """In the order in which a reader meets them."""
    whole = (ROOT / document).read_text()
    for block in _BLOCK.finditer(whole):
        start = whole[: block.start(1)].count("\n") + 1
        yield from _of_block(document, start, block[1])


def _of_block(document: str, start: int, text: str) -> Iterator[Command]:
    lines = text.splitlines()
    shown = any(line.startswith("$ ") for line in lines)  # the rest of such a block is output
    held, begun = "", 0
    for number, line in enumerate(lines, start):
        if not held:
            if not line.strip() or line.startswith("#") or (shown and not line.startswith("$ ")):
                continue
            begun = number
        held += re.sub(r"\s{2,}# .*$", "", line.removeprefix("$ ")).rstrip()
        if held.endswith("\\"):
            held = held[:-1]
        elif held.count("'") % 2 or held.endswith("|"):
            held += "\n"
        else:
            yield Command(document, begun, held.strip())
            held = ""
