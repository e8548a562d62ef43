"""The environment's settings, or an error that names the variable."""

from __future__ import annotations

from typing import NoReturn

from pydantic import ValidationError

from services.ctl.output import fail
from shared.settings import ServiceSettings


def environment() -> ServiceSettings:
    """Read `TRACER_…`; ends the command when one of them cannot be used."""
    try:
        return ServiceSettings()
    except ValueError as error:
        told(error)


def told(error: ValueError) -> NoReturn:
    """End the command: a setting cannot be used (exit code 2). Never shows a value."""
    if isinstance(error, ValidationError):
        problems = "; ".join(
            f"TRACER_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        fail(problems, code=2)
    fail(str(error), code=2)  # a secret's file
