"""A real HTTP endpoint for the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.ctl.recorded_llm import Behaviour, RecordedLLM
from shared.contracts.prompting import user_message

RECORDED = {
    "money back": "Refund",
    user_message(["a", "b"]): '"other".',
    "strange": "something else",
}


@pytest.fixture
def recorded() -> Iterator[Callable[..., RecordedLLM]]:
    """recorded(**behaviour) starts an endpoint that knows RECORDED."""
    started: list[RecordedLLM] = []

    def make(**behaviour: Any) -> RecordedLLM:
        started.append(RecordedLLM(RECORDED, behaviour=Behaviour(**behaviour)))
        return started[-1]

    yield make
    for llm in started:
        llm.close()
