"""What the pages on sources and teachers tell users to paste is taken."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from services.teacher.costs import load_prices
from shared.contracts.mapping import Format, SourceMapping
from shared.contracts.tasks import load_tasks
from shared.sources.catalogue import readers_by_topic, readers_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("sources", "teachers")
    for number, block in enumerate(
        re.findall(r"```yaml\n(tasks:.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_tasks_file_of_the_docs_loads_and_its_paths_compile(block: str, tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(block)
    tasks = load_tasks(file)
    readers_by_topic(tasks.values())
    readers_of(tasks.values(), *Format)


def test_the_price_table_of_the_docs_loads(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(gpt.*?)```", (DOCS / "teachers.md").read_text(), re.DOTALL)
    (tmp_path / "prices.yaml").write_text(block)
    assert load_prices(tmp_path / "prices.yaml")


def test_every_format_and_field_has_its_words() -> None:
    text = (DOCS / "sources.md").read_text()
    fields = [field.name for field in msgspec.structs.fields(SourceMapping)]
    for name in (*Format, *fields):
        assert name in text, name
