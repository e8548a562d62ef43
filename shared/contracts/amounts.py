"""Amounts that a schema allows and no call has. One such trace would spoil a day, or a horizon."""

from __future__ import annotations

from shared.bus.errors import InvalidMessage
from shared.contracts.events import LEAST_PROBABILITY, MOST_DOLLARS, MOST_TOKENS, LabelledCall


def check_amounts(call: LabelledCall) -> None:
    """Raises InvalidMessage naming the field."""
    if call.cost is not None and call.cost > MOST_DOLLARS:
        raise InvalidMessage(f"no call costs ${call.cost:g}", field="cost")
    tokens = call.tokens
    if tokens is not None and max(tokens.input, tokens.output) > MOST_TOKENS:
        raise InvalidMessage("no call has so many tokens", field="tokens")
    if call.observation_probability < LEAST_PROBABILITY:
        raise InvalidMessage(
            f"must be at least {LEAST_PROBABILITY:g}", field="observation_probability"
        )
