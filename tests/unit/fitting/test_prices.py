"""A price that no call has is refused with the tasks file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.contracts.tasks import InvalidTasks, load_tasks


@pytest.mark.parametrize("price", ["-0.01", ".nan", ".inf", "2000000"])
@pytest.mark.parametrize("field", ["per_call", "per_million_input_tokens"])
def test_it_is_named(tmp_path: Path, field: str, price: str) -> None:
    """Savings were negative, or no number, and so was the cost of every trace."""
    path = tmp_path / "tasks.yaml"
    path.write_text(f"tasks: [{{name: support, price: {{{field}: {price}}}}}]\n")
    with pytest.raises(InvalidTasks, match=f"price.{field}"):
        load_tasks(path)


def test_nothing_is_a_price(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks: [{name: support, price: {per_call: 0}}]\n")
    assert load_tasks(path)["support"].price.per_call == 0.0
