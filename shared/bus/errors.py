"""Three fates of a message: invalid (dead letter), retryable (again, later), fatal (stop)."""

from __future__ import annotations


class InvalidMessage(Exception):
    """This message can never be handled; it goes to the dead letters.

    `field` names the offending field ("" when the whole message is at fault).
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Understood(InvalidMessage):
    """Invalid for what it tells, not for how: it was read well, so the reader is not at fault,
    however many there are."""


class Retryable(Exception):
    """The same call may succeed later."""


class Fatal(Exception):
    """This process cannot go on: fenced, misconfigured, or told so by the broker."""
