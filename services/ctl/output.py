"""What tracerctl prints: results on standard output, everything else on standard error.

Much of it is what others wrote, in a trace or a request: it is shown as it is, and moves no cursor,
has no colour and breaks no table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

# What terminals obey: C0 but for line ends and tabs, C1, and what turns the writing round.
_OBEYED = (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F),
           *range(0x2066, 0x206A))  # fmt: skip
_SHOWN = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _OBEYED}
_MANY_COLUMNS, _LEAST_WIDTH = 9, 12
_IN_JSON = {code: f"\\u{code:04x}" for code in _OBEYED if code >= 0x7F}


def plain_text(text: str) -> str:
    """`text` with what a terminal would obey written out."""
    return text.translate(_SHOWN)


class PlainConsole(Console):
    """Strings are text: no markup, no emoji by name, nothing that a terminal obeys."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(plain_text(text), **how)


console = PlainConsole()
messages = PlainConsole(stderr=True)


def print_json(result: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(result, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write(text.translate(_IN_JSON) + "\n")


def write_json(document: bytes) -> None:
    """One that is JSON already, in UTF-8."""
    sys.stdout.buffer.write((document.decode().translate(_IN_JSON) + "\n").encode())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """What is too long for its column goes on in the next line, whole. Where a terminal is too
    narrow for many columns, each row is a paragraph: strips of four letters nobody reads."""
    if len(columns) > _MANY_COLUMNS and console.width < _LEAST_WIDTH * len(columns):
        console.print(title)
        for row in rows:
            console.print(f"{columns[0]} {row[0]}", soft_wrap=True)
            for name, cell in zip(columns[1:], row[1:], strict=True):
                if str(cell):
                    console.print(f"  {name}: {cell}", soft_wrap=True)
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def percent(share: float | None) -> str:
    """Empty for what is not known."""
    return "" if share is None else f"{share:.1%}"


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the command with a message that says what to do."""
    messages.print(Text.assemble(("error:", "red"), f" {plain_text(message)}"), soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on standard error; silent when that is not a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    ) as bar:
        yield bar
