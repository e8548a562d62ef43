"""From tokens to US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from shared.bus.errors import Fatal
from shared.contracts.events import Tokens
from shared.contracts.tasks import Price, Task

FREE = Price()


class Prices:
    """A task's own price, or that of the model that answered.

    A model is looked up by its name, then by the longest known name it begins with: endpoints
    answer with a dated version of what they were asked for.
    """

    def __init__(self, models: Mapping[str, Price] | None = None) -> None:
        self._models = dict(models or {})

    def price(self, task: Task, model: str) -> Price:
        if task.price != FREE:
            return task.price
        if model in self._models:
            return self._models[model]
        known = [name for name in self._models if model.startswith(name)]
        return self._models[max(known, key=len)] if known else FREE

    def cost(self, task: Task, model: str, tokens: Tokens | None) -> float | None:
        return cost_of(self.price(task, model), tokens)


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


def load_prices(path: Path | None) -> Prices:
    """A YAML file of model names and their prices. Raises Fatal naming the file and the field."""
    if path is None:
        return Prices()
    try:
        return Prices(msgspec.yaml.decode(path.read_bytes(), type=dict[str, Price]))
    except (OSError, msgspec.DecodeError) as error:
        raise Fatal(f"TRACER_TEACHER_PRICES={path}: {error}") from error


def check_budgets(tasks: Mapping[str, Task], prices: Prices, default_model: str) -> None:
    """Raises Fatal for a budget in dollars that nothing would ever be counted against."""
    for name, task in tasks.items():
        if task.budget is None or task.budget.usd_per_day is None:
            continue
        model = task.teacher.model if task.teacher else default_model
        if prices.price(task, model) == FREE:
            raise Fatal(
                f"task {name!r}: budget.usd_per_day needs a price: give the task a `price`, or "
                f"{model!r} one in the file of TRACER_TEACHER_PRICES"
            )
