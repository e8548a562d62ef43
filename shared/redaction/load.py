"""The redactor a task names: run before a text is stored, shown or learned from."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import cache

from shared.contracts.events import Input
from shared.contracts.tasks import Task
from shared.redaction.patterns import redact_patterns

Redactor = Callable[[str], str]
BUILTIN = "builtin"
TRIAL = "write to ann@example.org"


class InvalidRedactor(ValueError):
    """The task's `redact` names nothing that can be used; the message says what to do."""


class RedactionFailed(ValueError):
    """A redactor fails on a text. Its error may quote the text, so only its kind is told."""


@cache
def load_redactor(name: str | None) -> Redactor | None:
    """`builtin` for the patterns here, `package.module:function` for one of your own (a text in, a
    text out), None for none. Raises InvalidRedactor."""
    if name is None:
        return None
    if name == BUILTIN:
        return redact_patterns
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidRedactor(
            f"redact: {name!r} cannot be imported ({error}); name `{BUILTIN}` or "
            "`package.module:function`, installed where the service runs"
        ) from error
    if not callable(found):
        raise InvalidRedactor(f"redact: {name!r} is not a function")
    return _checked(found, name)


def redact_input(given: Input, name: str | None) -> Input:
    """One or two texts, by the redactor of that name. Raises InvalidRedactor, and RedactionFailed
    for these texts alone."""
    redactor = load_redactor(name)
    if redactor is None:
        return given
    try:
        return redactor(given) if isinstance(given, str) else [redactor(text) for text in given]
    except Exception as error:  # noqa: BLE001 (whatever somebody's own function raises)
        kind = type(error).__name__
        raise RedactionFailed(f"the redactor {name!r} fails on this text with {kind}") from None


def check_redactors(tasks: Iterable[Task]) -> None:
    """At the start of a service, rather than at the first text: each is run once. Raises
    InvalidRedactor."""
    for task in tasks:
        try:
            redactor = load_redactor(task.redact)
            if redactor is not None:
                redactor(TRIAL)
        except InvalidRedactor as error:
            raise InvalidRedactor(f"task {task.name}: {error}") from error
        except Exception as error:  # whatever somebody's own function raises
            raise InvalidRedactor(
                f"task {task.name}: redact: {task.redact!r} fails: {type(error).__name__}: {error}"
            ) from error


def _checked(function: Callable[[str], object], name: str) -> Redactor:
    def redact(text: str) -> str:
        redacted = function(text)
        if not isinstance(redacted, str) or not redacted.strip():
            # An empty input is none: what is all secret still has to be a text.
            redacted = "[REDACTED]"
        return redacted

    redact.__name__ = name
    return redact
