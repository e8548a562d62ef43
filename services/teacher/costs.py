"""From tokens to US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from shared.bus.errors import Fatal
from shared.contracts.events import Input, Tokens
from shared.contracts.prompting import asked_message, system_prompt
from shared.contracts.tasks import Price, Task

FREE = Price()
_BYTES_A_TOKEN = 3


class Prices:
    """A task's own price, that of the model that answered, or else that of the model asked for.

    A model is looked up by its name, then by the longest known name it begins with: endpoints
    answer with a dated version of what they were asked for, and for an alias or a deployment with
    another name altogether. `default_model` is asked for by tasks without a `teacher`.
    """

    def __init__(
        self, models: Mapping[str, Price] | None = None, *, default_model: str = ""
    ) -> None:
        self._models = dict(models or {})
        self._default_model = default_model

    def price(self, task: Task, answered: str | None = None) -> Price:
        """`answered`: the name that the endpoint gave itself, None where it gave none."""
        if task.price != FREE:
            return task.price
        for name in (answered, self.asked(task)):
            if name is not None and (found := self._of(name)) is not None:
                return found
        return FREE

    def asked(self, task: Task) -> str:
        """The name of the model that the task asks for."""
        return task.teacher.model if task.teacher else self._default_model

    def _of(self, model: str) -> Price | None:
        known = [name for name in self._models if model.startswith(name)]
        return self._models[max(known, key=len)] if known else None


def cost_of(price: Price, tokens: Tokens | None) -> float | None:
    """US dollars; None where there is no price, or one by tokens nobody counted."""
    if price == FREE:
        return None
    if tokens is None:
        by_token = price.per_million_input_tokens or price.per_million_output_tokens
        return None if by_token else price.per_call
    return (
        price.per_call
        + tokens.input * price.per_million_input_tokens / 1e6
        + tokens.output * price.per_million_output_tokens / 1e6
    )


def estimated(task: Task, text: Input, answer: str) -> Tokens:
    """A call's tokens where the endpoint counted none: one for every three bytes of UTF-8, which is
    more than most tokenizers make of prose. What a model thought is not among them."""
    asked = system_prompt(task) + asked_message(task, text)
    return Tokens(input=_about(asked), output=_about(answer))


def _about(words: str) -> int:
    return -(-len(words.encode()) // _BYTES_A_TOKEN)


def load_prices(path: Path | None, default_model: str) -> Prices:
    """A YAML file of model names and their prices. Raises Fatal naming the file and the field."""
    if path is None:
        return Prices(default_model=default_model)
    try:
        models = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Price])
    except (OSError, msgspec.DecodeError) as error:
        raise Fatal(f"TRACER_TEACHER_PRICES={path}: {error}") from error
    return Prices(models, default_model=default_model)


def check_budgets(tasks: Mapping[str, Task], prices: Prices) -> None:
    """Raises Fatal for a budget in dollars that nothing would ever be counted against."""
    for name, task in tasks.items():
        if task.budget is None or task.budget.usd_per_day is None:
            continue
        if prices.price(task) == FREE:
            raise Fatal(
                f"task {name!r}: budget.usd_per_day needs a price: give the task a `price`, or "
                f"{prices.asked(task)!r} one in the file of TRACER_TEACHER_PRICES"
            )
